"""The errors a user may see as one line; everything else is a bug and keeps its traceback."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input is wrong: nothing was written. The message says what, where and how to mend it (exit code 2)."""


class WorkError(RuntimeError):
    """The work failed half-way: what is done is kept. The message says why and how to go on (exit code 1)."""


class OutageError(WorkError):
    """The storage server does not answer, or answers that it cannot now: the only error that is tried again."""

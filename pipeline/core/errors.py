"""The errors a user may see as one line; everything else is a bug and keeps its traceback."""

from __future__ import annotations


def named_line(error: Exception) -> str:
    """`ValueError: what it says`, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())


class InputError(ValueError):
    """The user's input is wrong: nothing was written. The message says what, where and how to mend it (exit code 2)."""


class MissingDataError(InputError):
    """Images that are not there, or not whole; the others that were asked for can be used without them."""


class WorkError(RuntimeError):
    """The work failed half-way: what is done is kept. The message says why and how to go on (exit code 1)."""


class WorkerBrokenError(WorkError):
    """This process can no longer make images, e.g. since its GPU is in error; another process may be able to."""


class SharedError(WorkError):
    """All processes of a training meet it at the same step, so each may return: none waits for another."""


class OutageError(WorkError):
    """The storage server does not answer, or answers that it cannot now: the only error that is tried again."""

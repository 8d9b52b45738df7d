"""When does a job that waits, or whose workers die again and again, have to say so, and when to end?"""

from __future__ import annotations

from pipeline.core.errors import WorkError

WARN_STARTS = 5
"""Starts of one actor in a row without a finished shard after which a line is due, and again after as many."""
MAX_STARTS = 30
"""After so many the job ends. Preempted nodes stay far below: one finished shard begins the count anew."""


class StallClock:
    """Counts the seconds without a sign of life.

    Args:
        warn_after_s: quiet seconds after which a line is due, and again after as many.
        give_up_after_s: quiet seconds after which the job ends.
    """

    def __init__(self, warn_after_s: float, give_up_after_s: float) -> None:
        self._warn_after_s = warn_after_s
        self._give_up_after_s = give_up_after_s
        self._warnings = 0

    def look(self, quiet_s: float, situation: str) -> str | None:
        """Judge a moment.

        Args:
            quiet_s: seconds since the last sign of life.
            situation: what is waited for, in words.

        Returns:
            A line that is due now, else None.

        Raises:
            WorkError: it has been quiet for too long.
        """
        if quiet_s >= self._give_up_after_s:
            raise WorkError(
                f"nothing has happened for {quiet_s:.0f} s: {situation}; mend that and run the same command again, "
                "what is published is kept (generate.stall_timeout_s is how long is waited)"
            )
        return f"nothing has happened for {quiet_s:.0f} s: {situation}" if self._is_due(quiet_s) else None

    def look_at_one(self, quiet_s: float, last_said: str) -> str | None:
        """A line that is due now about one actor that is silent while others work, else None; it ends nothing."""
        if not self._is_due(quiet_s):
            return None
        return (
            f"an actor has said nothing for {quiet_s:.0f} s while others work; it last said: {last_said}; if that "
            "process hangs, end it (kill -9): it is started again, and its shard is made anew"
        )

    def _is_due(self, quiet_s: float) -> bool:
        due = int(quiet_s // self._warn_after_s)
        is_due, self._warnings = due > self._warnings, due
        return is_due


class CrashClock:
    """Counts the starts of an actor that never gets a shard done: Ray starts it again without an end.

    Args:
        warn_starts: starts in a row after which a line is due, and again after as many.
        max_starts: starts in a row after which the job ends.
    """

    def __init__(self, warn_starts: int = WARN_STARTS, max_starts: int = MAX_STARTS) -> None:
        self._warn_starts = warn_starts
        self._max_starts = max_starts
        self._warnings = 0

    def look(self, starts: int, last_said: str) -> str | None:
        """Judge a moment.

        Args:
            starts: of the actor that was started most often since it finished a shard.
            last_said: its last words.

        Returns:
            A line that is due now, else None.

        Raises:
            WorkError: it was started too often.
        """
        situation = f"an actor was started {starts} times and has not finished a shard since; it last said: {last_said}"
        if starts >= self._max_starts:
            raise WorkError(
                f"{situation}; its process dies each time, most often for lack of memory: see its node and Ray's logs, "
                "mend that and run the same command again, what is published is kept"
            )
        due = starts // self._warn_starts
        if due <= self._warnings:
            self._warnings = due
            return None
        self._warnings = due
        return situation

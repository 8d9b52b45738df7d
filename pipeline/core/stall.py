"""When does a job that waits have to say so, and when to end?"""

from __future__ import annotations

from pipeline.core.errors import WorkError


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
        due = int(quiet_s // self._warn_after_s)
        if due <= self._warnings:
            self._warnings = min(self._warnings, due)
            return None
        self._warnings = due
        return f"nothing has happened for {quiet_s:.0f} s: {situation}"

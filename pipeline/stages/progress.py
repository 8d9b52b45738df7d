"""Progress of a long job: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm


class Progress:
    """Counts images and says, every few seconds, how far the job is.

    Args:
        total: images of the whole set.
        done_before: of these, made by earlier runs.
        log_interval_s: seconds between lines.
        failed_before: of those made by earlier runs, images that failed, by reason.
    """

    def __init__(
        self,
        total: int,
        done_before: int,
        log_interval_s: float,
        failed_before: Mapping[str, int] | None = None,
    ) -> None:
        self._total = total
        self._done_before = done_before
        self._log_interval_s = log_interval_s
        self._made = 0
        self._actor_s = 0.0
        self.failed = Counter(failed_before or {})
        """Images by reason."""
        self._first_s: float | None = None
        self._said_s = time.monotonic()
        self._bar = tqdm(total=total, initial=done_before, unit="image", disable=not sys.stderr.isatty())

    def start_clock(self, seconds_ago: float) -> None:
        """The first actor began to work that long ago: rates are over working time, not over the loading of models."""
        if self._first_s is None:
            self._first_s = time.monotonic() - seconds_ago

    def add(self, images: int, failed: Mapping[str, int], actor_s: float) -> None:
        """Count a finished shard, which took one actor so many seconds: pools grow and shrink."""
        self._made += images
        self._actor_s += actor_s
        self.failed.update(failed)
        self._bar.update(images)
        if self._bar.disable and time.monotonic() - self._said_s >= self._log_interval_s:
            self._said_s = time.monotonic()
            print(self.line(), flush=True)

    def line(self) -> str:
        """`generate 800/2000 images, 21.3 images/s (10.7 per busy actor), 56 s left, 2 failed (2 x ValueError: …)`."""
        done = self._done_before + self._made
        elapsed = time.monotonic() - self._first_s if self._first_s is not None else 0.0
        rate = self._made / elapsed if elapsed > 0 else 0.0
        left = f"{duration((self._total - done) / rate)} left" if rate else "time left unknown"
        per_actor = self._made / self._actor_s if self._actor_s > 0 else 0.0
        reasons = f" ({most_common(self.failed)})" if self.failed else ""
        return (
            f"generate {done}/{self._total} images, {rate:.1f} images/s ({per_actor:.1f} per busy actor), {left}, "
            f"{self.failed.total()} failed{reasons}"
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


def most_common(reasons: Mapping[str, int]) -> str:
    """`3 x ValueError: …; 1 x OSError: …`: the three reasons that most images failed for."""
    return "; ".join(f"{count} x {reason}" for reason, count in Counter(reasons).most_common(3))


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s` or `7 h 12 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

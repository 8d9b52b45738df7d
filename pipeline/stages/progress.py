"""Progress of a long job: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

from tqdm import tqdm

from pipeline.core.image_set import ShardSummary
from pipeline.core.schema import BLANK, NSFW


@dataclass(frozen=True)
class Tally:
    """Counts of images that no training takes.

    Args:
        failed: by reason.
        unused: that are there and not ok, by status.
    """

    failed: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    def add(self, summary: ShardSummary) -> None:
        """Count a shard's."""
        self.failed.update(summary.reasons)
        self.unused.update({status: summary.counts.get(status, 0) for status in (BLANK, NSFW)})


class Progress:
    """Counts images and says, every few seconds, how far the job is.

    Args:
        total: images of the whole set.
        done_before: of these, made by earlier runs.
        log_interval_s: seconds between lines.
        earlier: of those made by earlier runs, the images that no training takes; counted on here.
    """

    def __init__(
        self,
        total: int,
        done_before: int,
        log_interval_s: float,
        earlier: Tally | None = None,
    ) -> None:
        self._total = total
        self._done_before = done_before
        self._log_interval_s = log_interval_s
        self._made = 0
        self._actor_s = 0.0
        self.tally = earlier or Tally()
        self._first_s: float | None = None
        self._said_s = time.monotonic()
        self._bar = tqdm(total=total, initial=done_before, unit="image", disable=not sys.stderr.isatty())

    def add(self, summary: ShardSummary, *, is_new: bool = True) -> None:
        """Count a finished shard; the first one `is_new`, made by this run, starts the clock."""
        if is_new and self._first_s is None:
            # Rates are over working time, not over the loading of models. Both times are of the worker's clock, which
            # may be another than this machine's.
            self._first_s = time.monotonic() - (summary.finished - summary.started)
        self._made += summary.rows
        self._actor_s += summary.actor_s  # pools grow and shrink
        self.tally.add(summary)
        self._bar.update(summary.rows)
        if self._bar.disable and time.monotonic() - self._said_s >= self._log_interval_s:
            self._said_s = time.monotonic()
            print(self.line(), flush=True)

    def line(self) -> str:
        """`generate 800/2000 images, 21.3 images/s (10.7 per busy actor), 56 s left, 2 failed (2 x ValueError: …)`.

        `, 3 blank, 1 nsfw` follows where there are any.
        """
        done = self._done_before + self._made
        elapsed = time.monotonic() - self._first_s if self._first_s is not None else 0.0
        rate = self._made / elapsed if elapsed > 0 else 0.0
        left = f"{duration((self._total - done) / rate)} left" if rate else "time left unknown"
        per_actor = self._made / self._actor_s if self._actor_s > 0 else 0.0
        failed = self.tally.failed
        reasons = f" ({most_common(failed)})" if failed else ""
        unused = "".join(f", {count} {status}" for status, count in sorted(self.tally.unused.items()) if count)
        return (
            f"generate {done}/{self._total} images, {rate:.1f} images/s ({per_actor:.1f} per busy actor), {left}, "
            f"{failed.total()} failed{reasons}{unused}"
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

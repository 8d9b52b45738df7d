"""What a running pool tells Prometheus, through Ray's own metrics endpoint on every node (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Counter, Gauge

from pipeline.core.schema import FAILED

MAX_REASONS = 20
"""Different reasons that get a label of their own; a monitoring system keeps a series for each one for ever."""
OTHER = "other"
STARTING, READY, GONE, BROKEN = "starting", "ready", "gone", "broken"


class PoolMetrics:
    """Counters and gauges, owned by the one small actor that all others tell (`pipeline.stages.pulse.Pulse`).

    Ray puts `ray_` before the names and its own labels beside these; a counter's name ends in `_total`.
    """

    def __init__(self) -> None:
        self._images = Counter("synthclones_images", "Images made, lost shards included.", ("status",))
        self._failures = Counter("synthclones_failures", "Images that failed, by the kind of error.", ("reason",))
        self._seconds = Counter("synthclones_seconds", "Working seconds of all actors.", ("part",))
        self._actors = Gauge("synthclones_actors", "Actors that load the model, and that work.", ("state",))
        self._reasons: set[str] = set()
        self._states: dict[str, str] = {}

    def add_seconds(self, seconds: Mapping[str, float]) -> None:
        """Count work: seconds by part (text_encode, denoise, decode, encode, write)."""
        for part, value in seconds.items():
            if value > 0:  # Ray's counters refuse a zero
                self._seconds.inc(value, {"part": part})

    def add_outcomes(self, outcomes: Mapping[str, int]) -> None:
        """Count finished images: number by status, a failed one's with its kind: `failed: RuntimeError`."""
        for outcome, count in outcomes.items():
            status, _, reason = outcome.partition(": ")
            self._images.inc(count, {"status": status})
            if status == FAILED:
                self._failures.inc(count, {"reason": self._label(reason)})

    def set_state(self, who: str, state: str) -> None:
        """An actor or task is `starting`, `ready` or `gone`; one that was killed starts again under the same id."""
        if state == GONE:
            self._states.pop(who, None)
        else:
            self._states[who] = state
        for name in (STARTING, READY):
            self._actors.set(list(self._states.values()).count(name), {"state": name})

    def _label(self, reason: str) -> str:
        if len(self._reasons) < MAX_REASONS:
            self._reasons.add(reason)
        return reason if reason in self._reasons else OTHER

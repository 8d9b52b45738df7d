from __future__ import annotations

import pytest

from pipeline.core.errors import InputError
from pipeline.core.image_set import ShardSummary
from pipeline.stages.bench_scale import mean_in_flight, run_rows
from tests.image_sets import small_config


def summary(started: float, finished: float) -> ShardSummary:
    return ShardSummary(0, 0, 1, {"ok": 1}, {}, "", started, finished)


def test_shards_in_flight_are_averaged_over_the_time_looked_at() -> None:
    made = [summary(0, 10), summary(0, 5), summary(8, 30), summary(11, 12)]
    assert mean_in_flight(made, 0, 10) == pytest.approx((10 + 5 + 2) / 10)


def test_more_rows_than_the_disk_holds_are_refused_before_anything_is_written() -> None:
    with pytest.raises(InputError, match="GB free, .* GB are needed.*--rows"):
        run_rows(small_config(), 10**12, 256, 10_000, 1.0)

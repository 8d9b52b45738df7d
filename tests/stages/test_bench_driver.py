from __future__ import annotations

import time

import pytest

from pipeline.stages.bench_driver import DriverSampler, Sample, between


def sample(at_s: float, done: int) -> Sample:
    return Sample(at_s, done, 0.0, 0.0, 0.0)


def test_a_window_begins_and_ends_with_the_first_samples_that_reach_its_numbers() -> None:
    samples = [sample(float(i), done) for i, done in enumerate([0, 0, 3, 5, 9, 9, 9])]
    assert between(samples, 1, 9) == (samples[2], samples[4])


@pytest.mark.parametrize("done", [[], [0, 0], [0, 9], [9, 9, 9]])
def test_too_few_samples_are_no_window(done: list[int]) -> None:
    with pytest.raises(ValueError, match="no two of"):
        between([sample(float(i), number) for i, number in enumerate(done)], 1, 9)


def test_the_cpu_seconds_of_this_process_are_counted() -> None:
    whole_s = time.process_time()
    with DriverSampler(lambda: 3, 0.01) as sampler:
        while not sampler.samples:
            time.sleep(0.01)
        began = len(sampler.samples)
        until = time.thread_time() + 0.3
        while time.thread_time() < until or len(sampler.samples) < began + 2:
            pass
    first, last = sampler.samples[0], sampler.samples[-1]
    assert 0.1 < last.cpu_s - first.cpu_s <= time.process_time() - whole_s + 0.02
    assert last.done == 3 and last.private_mb > 1


def test_memory_that_is_held_is_seen() -> None:
    with DriverSampler(lambda: 0, 0.01) as sampler:
        time.sleep(0.1)
        held = bytearray(b"x" * 200_000_000)
        time.sleep(0.2)
    assert len(held) == 200_000_000
    assert sampler.samples[-1].private_mb - sampler.samples[0].private_mb > 150

"""Signs of life on real Ray: what they add up to, and what a pool that cannot start is told."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import psutil
import pytest
import ray

from pipeline.core.errors import WorkError
from pipeline.core.stall import WARN_STARTS
from pipeline.stages import pulse as module
from pipeline.stages.generate import generate
from pipeline.stages.pulse import ask, start_pulse, watched
from tests.tiny_sets import tiny_config

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_beats_add_up() -> None:
    pulse = start_pulse()
    ray.get(pulse.beat.remote("starting"))  # its process is up: `ask` waits 10 s and no longer
    pulse.beat.remote("ready")
    for seconds in (0.5, 0.25):
        pulse.beat.remote("batch", 5, {"denoise": seconds})
    vitals = ask(pulse)
    assert (vitals.starting, vitals.ready, vitals.images) == (1, 1, 10)
    assert vitals.seconds == {"denoise": 0.75} and 0 <= vitals.quiet_s < 30


def test_rays_control_service_keeps_nothing_of_its_calls() -> None:
    """By default it keeps some 3.6 KB of each, up to 100,000 of them."""
    (service,) = (c for c in psutil.Process().children(recursive=True) if "gcs_server" in c.name())
    pulse, calls = start_pulse(), 4_000
    ask(pulse)
    before = service.memory_full_info().uss
    for _ in range(calls // 400):
        ray.get([pulse.beat.remote("batch", who="w" * 40) for _ in range(400)])
        time.sleep(0.2)
    time.sleep(3)  # events are sent every second
    assert (service.memory_full_info().uss - before) / calls < 1_000


def test_an_actor_that_starts_again_and_again_is_no_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand actors that start once are; and so is one that finishes a shard between its starts."""
    pulse = module.Pulse()
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    for number in range(1000):
        now += 1
        pulse.beat("starting", who=str(number))
    assert (pulse.vitals().quiet_s, pulse.vitals().starts) == (0, 1)
    for _ in range(WARN_STARTS + 1):
        now += 100
        pulse.beat("starting", who="7")
        pulse.beat("making", who="7", says="making shard 3")
    vitals = pulse.vitals()
    assert (vitals.quiet_s, vitals.starts, vitals.last_said) == (200, WARN_STARTS + 2, "making shard 3")
    pulse.beat("shard", who="7")
    assert (pulse.vitals().quiet_s, pulse.vitals().starts) == (0, 1)


def test_rows_and_errors_come_through() -> None:
    pulse = start_pulse()
    assert list(watched(iter([1, 2, 3]), pulse, {}, 60)) == [1, 2, 3]

    def breaks():
        yield 1
        raise KeyError("x")

    rows = watched(breaks(), pulse, {}, 60)
    assert next(rows) == 1
    with pytest.raises(KeyError):
        next(rows)


def test_whoever_leaves_ends_the_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while its next row is awaited; left alone, Ray Data's execution would outlive Ray's session."""
    left = threading.Event()

    def waits():
        try:
            yield 1
            while True:
                time.sleep(0.01)
        finally:
            left.set()

    with closing(watched(waits(), start_pulse(), {}, 60)) as rows:
        assert next(rows) == 1
        time.sleep(0.1)
        assert not left.is_set()
    assert left.is_set()


def test_slow_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row comes for longer than the timeout, but an actor goes on telling of batches."""
    monkeypatch.setattr(module, "POLL_S", 0.1)
    pulse = start_pulse()

    def slow():
        for _ in range(30):
            ray.get(pulse.beat.remote("batch"))
            time.sleep(0.1)
        yield "row"

    assert list(watched(slow(), pulse, {}, 1.5)) == ["row"]


def test_a_pool_that_cannot_start_says_why_and_ends(
    tiny_model, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Actors that need more CPUs than all nodes have: Ray itself would wait without an end. A look may take 10 s."""
    from pipeline.core.artifact import Store

    monkeypatch.setattr(module, "POLL_S", 0.5)
    monkeypatch.setattr(module, "WARN_AFTER_S", 3.0)
    config = tiny_config(tiny_model)
    greedy = config.generate.model_copy(update={"num_cpus_per_actor": 64.0, "stall_timeout_s": 20.0})
    store = Store.open(str(tmp_path / "runs"))
    with pytest.raises(WorkError, match=r"no actor could start; each needs 64 CPU, all nodes together have 4 CPU"):
        generate(config.model_copy(update={"generate": greedy}), store)
    assert "generate: nothing has happened for" in capsys.readouterr().out

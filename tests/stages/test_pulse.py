"""Signs of life on real Ray: what they add up to."""

from __future__ import annotations

import time

import psutil
import pytest
import ray

from pipeline.core.stall import WARN_STARTS
from pipeline.stages import pulse as module
from pipeline.stages.pulse import ask, start_pulse

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


def test_the_actor_at_work_that_has_been_silent_the_longest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one that has nothing to make: it is ready, has finished its shard, or is gone."""
    pulse = module.Pulse()
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)

    def silent() -> tuple[float, str]:
        (one, *_) = pulse.vitals().silent or [module.Silent("", "", 0, "nobody")]
        return one.seconds, one.said

    assert silent() == (0, "nobody")
    pulse.beat("starting", who="a", says="starting a")
    pulse.beat("starting", who="b", says="starting b")
    pulse.beat("ready", who="b")
    now = 10
    assert silent() == (10, "starting a")
    pulse.beat("ready", who="a")
    pulse.beat("making", who="b", says="making shard 0")
    now = 20
    pulse.beat("making", who="a", says="making shard 1")
    assert silent() == (10, "making shard 0")
    pulse.beat("batch", 4, who="b")
    now = 25
    pulse.beat("batch", 4, who="b")
    assert silent() == (5, "making shard 1")
    pulse.beat("shard", who="a")
    pulse.beat("gone", who="b")
    now = 1000
    assert silent()[0] == 0


def test_a_shard_that_ends_hides_no_other_one_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An actor with `shards_in_flight: 2` ends one of them, and finds one made, while the other one hangs."""
    pulse, now = module.Pulse(), 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    pulse.beat("making", who="a", says="making shard 17")
    pulse.beat("making", who="a", says="making shard 18")
    pulse.beat("shard", who="a")
    pulse.beat("found", who="a")
    now = 100
    (one,) = pulse.vitals().silent
    assert (one.seconds, one.said) == (100, "making shard 18")
    pulse.beat("shard", who="a")
    assert pulse.vitals().silent == ()

"""What Prometheus would read of a pool: the text of a real Ray node's metrics endpoint."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.stages.generate import generate
from pipeline.stages.pool_metrics import MAX_REASONS, OTHER
from pipeline.stages.pulse import start_pulse
from tests.tiny_sets import settings

pytestmark = pytest.mark.usefixtures("ray_cluster")

Sums = dict[tuple[str, str], float]
REPORT_S = 60
"""Ray's workers hand their figures to the node's agent every 10 s."""


def scrape(worker_id: str) -> Sums:
    """The figures of one worker by (name, our label)."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    sums: Sums = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_synthclones_") and sample.labels["WorkerId"] == worker_id:
                ours = [sample.labels[key] for key in ("status", "reason", "part", "state") if key in sample.labels]
                key = (sample.name.removeprefix("ray_synthclones_"), *ours)
                assert len(key) == 2 and key not in sums, sample
                sums[key] = sample.value
    return sums


def told(pulse: Any, is_there: Callable[[Sums], bool]) -> Sums:
    """What the worker of a `Pulse` has reported, as soon as that is what is waited for."""
    worker_id = ray.get(pulse.__ray_call__.remote(lambda _: ray.get_runtime_context().get_worker_id()))
    deadline = time.monotonic() + REPORT_S
    while not is_there(sums := scrape(worker_id)):
        assert time.monotonic() < deadline, sums
        time.sleep(1)
    return sums


def test_a_run_is_counted_for_prometheus_and_said_in_the_log(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pulse = start_pulse()
    monkeypatch.setattr("pipeline.stages.generate.start_pulse", lambda: pulse)  # it outlives the run here
    config = load_config("fashion", overrides=settings(tiny_model))
    generate(config, Store.open(str(tmp_path)))
    parts = {"text_encode", "denoise", "decode", "encode", "write"}
    line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("seconds: "))
    said = dict(part.split() for part in line.removeprefix("seconds: ").split(", "))
    assert said.keys() == parts
    sums = told(pulse, lambda sums: ("seconds_total", "write") in sums and sums.get(("images_total", "ok")) == 40)
    assert {label for name, label in sums if name == "seconds_total"} == parts
    for part, text in said.items():
        assert sums["seconds_total", part] == pytest.approx(float(text), abs=0.06)
    assert not any(name == "failures_total" for name, _ in sums)
    told(pulse, lambda sums: {sums.get(("actors", state)) for state in ("starting", "ready")} == {0})  # it said goodbye
    ray.kill(pulse)


def test_failures_have_a_bounded_number_of_labels_and_actors_come_and_go() -> None:
    pulse = start_pulse()
    tell = pulse.beat.remote
    for number in range(MAX_REASONS + 5):
        tell("encoded", outcomes={f"failed: Error{number}": 1, "ok": 2, "nsfw": 1})
    for who in "abc":
        tell("starting", who=who)
    tell("ready", who="a")
    tell("ready", who="b")
    tell("starting", who="a")  # killed, and started again by Ray
    tell("gone", who="b")
    count = MAX_REASONS + 5
    sums = told(pulse, lambda sums: sums.get(("images_total", "failed")) == count and ("actors", "ready") in sums)
    assert sums["images_total", "ok"] == 2 * count and sums["images_total", "nsfw"] == count
    reasons = {label: value for (name, label), value in sums.items() if name == "failures_total"}
    assert len(reasons) == MAX_REASONS + 1 and reasons[OTHER] == 5 and reasons["Error0"] == 1
    assert (sums["actors", "starting"], sums["actors", "ready"]) == (2, 0)
    ray.kill(pulse)

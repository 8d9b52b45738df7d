"""What Prometheus would read of a pool: the text of a real Ray node's metrics endpoint."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

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


def scrape() -> Sums:
    """Our figures by (name, our label), summed over Ray's labels: each run has a `Pulse` of its own."""
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=10) as answer:
        text = answer.read().decode()
    sums: Sums = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_synthclones_"):
                ours = [sample.labels[key] for key in ("status", "reason", "part", "state") if key in sample.labels]
                key = (sample.name.removeprefix("ray_synthclones_"), *ours)
                assert len(key) == 2, sample
                sums[key] = sums.get(key, 0) + sample.value
    return sums


def settled() -> Sums:
    """The figures once those of earlier tests' runs have come in."""
    while True:
        before = scrape()
        time.sleep(11)  # over Ray's interval
        if scrape() == before:
            return before


def grown(before: Sums, is_there: Callable[[Sums], bool]) -> Sums:
    """What the counters have grown by, as soon as that is what is waited for."""
    deadline = time.monotonic() + REPORT_S
    while True:
        now = scrape()
        growth = {key: value - before.get(key, 0) for key, value in now.items()}
        if is_there(growth):
            return growth
        assert time.monotonic() < deadline, growth
        time.sleep(1)


def test_a_run_is_counted_for_prometheus_and_said_in_the_log(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before, pulse = settled(), start_pulse()
    monkeypatch.setattr("pipeline.stages.generate.start_pulse", lambda: pulse)  # it outlives the run here
    config = load_config("fashion", overrides=settings(tiny_model))
    generate(config, Store.open(str(tmp_path)))
    parts = {"text_encode", "denoise", "decode", "encode", "write"}
    line = next(line for line in capfd.readouterr().out.splitlines() if line.startswith("seconds: "))
    said = dict(part.split() for part in line.removeprefix("seconds: ").split(", "))
    assert said.keys() == parts
    growth = grown(before, lambda sums: ("seconds_total", "write") in sums and sums.get(("images_total", "ok")) == 40)
    assert {label for name, label in growth if name == "seconds_total"} == parts
    for part, text in said.items():
        assert growth["seconds_total", part] == pytest.approx(float(text), abs=0.06)
    assert not any(value for (name, _), value in growth.items() if name == "failures_total")
    grown(
        before, lambda sums: {sums.get(("actors", state)) for state in ("starting", "ready")} == {0}
    )  # it said goodbye
    ray.kill(pulse)


def test_failures_have_a_bounded_number_of_labels_and_actors_come_and_go() -> None:
    before = settled()
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
    growth = grown(before, lambda sums: sums.get(("images_total", "failed")) == count and ("actors", "ready") in sums)
    assert growth["images_total", "ok"] == 2 * count and growth["images_total", "nsfw"] == count
    reasons = {label: value for (name, label), value in growth.items() if name == "failures_total" and value}
    assert len(reasons) == MAX_REASONS + 1 and reasons[OTHER] == 5 and reasons["Error0"] == 1
    assert (growth["actors", "starting"], growth["actors", "ready"]) == (2, 0)
    ray.kill(pulse)

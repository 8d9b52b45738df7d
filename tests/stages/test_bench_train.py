"""What the ratios of `jobs.bench train` are of; tests/jobs/test_bench.py (slow) measures every side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.core.machine import usable_cpus
from pipeline.core.train_config import TrainConfig
from pipeline.stages import bench_train
from pipeline.stages.bench_sides import Measured
from pipeline.stages.bench_train_bare import _our_loop, loader_options, timed_rate
from pipeline.stages.bench_train_set import BenchSet, write_bench_set
from tests.image_sets import small_config


def test_a_rate_counts_what_lies_between_the_epochs_after_the_first() -> None:
    assert timed_rate([(100, 1000.0), (100, 1010.0), (100, 1025.0)]) == 200 / 25


def test_the_loader_runs_on_the_cores_of_its_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []
    cpus = 0

    @contextmanager
    def session(number: int) -> Iterator[None]:
        nonlocal cpus
        cpus = number
        yield
        cpus = 0

    def side(name: str) -> Callable[[BenchSet], Measured]:
        def run(_data: BenchSet) -> Measured:
            ran.append((name, cpus))
            return Measured(1.0, 1.0)

        return run

    monkeypatch.setattr(bench_train, "ray_session", session)
    monkeypatch.setattr(bench_train, "SIDES", {name: side(name) for name in bench_train.SIDES})
    ratios = ["loader_over_bare_decode", "ray_over_bare_ddp"]
    found = bench_train.compare_training(small_config(2, 10), 1, ratios, lambda _: None)
    assert dict(ran) == {
        "bare_ddp": 0, "bare_decode": 0, "ray_memory": max(4, usable_cpus()), "loader": usable_cpus()
    }  # fmt: skip
    assert (found["cpus"], found["loader_over_bare_decode"]) == (usable_cpus(), 1.0)


def test_a_lone_worker_trains_the_plain_network_as_under_ray(tmp_path: Path) -> None:
    """DDP's wrapper has a cost, and cannot be made here, where there is no process group."""
    data = write_bench_set(small_config(2, 10, num_workers=1, batch_size=4), tmp_path)
    assert [images for images, _ in _our_loop(data, "tensors", 0, torch.device("cpu"))] == [20, 20]


EXTRA = {"n03595614": 2}


@pytest.mark.parametrize(
    ("train", "name"),
    [
        ({"data": "real"}, "data"),
        ({"data": "mixed"}, "data"),
        ({"filters": {"min_pixel_std": 5}}, "filters"),
        ({"extra_images": EXTRA}, "extra_images"),
        ({"sync_batch_norm": True, "device": "cuda"}, "sync_batch_norm"),
        ({"logit_adjustment": 1}, "logit_adjustment"),
    ],
)
def test_settings_that_no_peer_follows_are_refused(train: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=rf"train\.{name} is followed by no peer"):
        bench_train.compare_training(small_config(2, 10, **train), 1, ["loader_over_bare_decode"], lambda _: None)


@pytest.mark.parametrize(
    ("train", "name"),
    [
        ({"augmentation": "dino_multicrop"}, "augmentation"),
        ({"ema_decay": 0.9}, "ema_decay"),
        ({"max_batch_per_worker": 4}, "max_batch_per_worker"),
        ({"mixed_precision": "float16", "device": "cuda"}, "mixed_precision"),
    ],
)
def test_settings_that_the_script_does_not_follow_are_refused_beside_it_alone(train: dict[str, Any], name: str) -> None:
    settings = small_config(2, 10, **train).train
    bench_train.check_alike(settings, ["ray_over_bare_ddp"])
    with pytest.raises(InputError, match=rf"train\.{name} is more than the torchvision script does"):
        bench_train.check_alike(settings, ["ray_over_bare_ddp", "stream_over_torchvision_script"])


@pytest.mark.parametrize(("cpus", "workers", "processes"), [(16, 1, 15), (16, 8, 1), (2, 4, 1)])
def test_the_script_reads_ahead_with_all_cores_of_a_worker_on_a_gpu(
    cpus: int, workers: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.stages.bench_train_bare.usable_cpus", lambda: cpus)
    settings = TrainConfig(num_workers=workers)
    assert loader_options(settings) == {"num_workers": 1}
    on_gpu = settings.model_copy(update={"device": "cuda"})
    assert loader_options(on_gpu) == {"num_workers": processes, "pin_memory": True}

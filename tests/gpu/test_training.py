"""Training on a GPU: what the CPU tests prove there, and what only a GPU has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.core.artifact import Store
from pipeline.core.augment import eval_transform
from pipeline.core.train_config import MultiCropConfig, TrainConfig
from pipeline.core.training_loop import build_augmentation
from pipeline.stages.train import train
from tests.core.test_augment import SETTINGS, random_images
from tests.core.test_training_loop import check_it_learns
from tests.image_sets import small_config

pytestmark = pytest.mark.gpu

LOCAL_CROPS = MultiCropConfig(num_local=4, local_size=16)


@pytest.mark.parametrize("precision", ["none", "bfloat16", "float16"])
def test_it_learns_and_float16_steps_by_its_loss_scale(precision: str) -> None:
    check_it_learns(device="cuda", mixed_precision=precision)


@pytest.mark.parametrize(
    "settings",
    [SETTINGS, SETTINGS.model_copy(update={"augmentation": "dino_multicrop", "multi_crop": LOCAL_CROPS})],
    ids=["pytorch", "dino_multicrop"],
)
def test_augmented_images_are_those_of_the_cpu(settings: TrainConfig) -> None:
    augment, pictures = build_augmentation(settings), random_images(8)
    ours, theirs = augment(pictures.cuda(), 1, 2), augment(pictures, 1, 2)
    for on_gpu, on_cpu in zip(ours, theirs, strict=True):
        torch.testing.assert_close(on_gpu.cpu(), on_cpu, atol=0.01, rtol=0)


def test_inputs_for_scoring_are_those_of_the_cpu() -> None:
    pictures = random_images(8, 40)
    torch.testing.assert_close(
        eval_transform(pictures.cuda(), 32).cpu(), eval_transform(pictures, 32), atol=1e-3, rtol=0
    )


def losses(root: Path, **settings: Any) -> list[float]:
    store = Store.open(str(root))
    config = small_config(images_per_class=5, data="real", device="cuda", **settings)
    lines = store.read_bytes(f"{train(config, store)['model_dir']}/metrics.jsonl").decode().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_gpus_with_one_batch_norm_give_the_losses_of_one(tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    two = losses(tmp_path / "two", num_workers=2, sync_batch_norm=True)
    assert two == pytest.approx(losses(tmp_path / "one", num_workers=1), rel=1e-2)

"""Multi-crop: the batched crops have the statistics of torchvision's transforms, image by image."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.core.augment import IMAGENET_MEAN, IMAGENET_STD
from pipeline.core.multi_crop import Draws, MultiCropAugmentation, View, draw, render
from pipeline.core.train_config import MultiCropConfig, TrainConfig

CROPS = MultiCropConfig(num_local=4, local_size=16)
SETTINGS = TrainConfig(input_size=32, augmentation="dino_multicrop", multi_crop=CROPS, seed=3)
COUNT = 800
SIDE = 40


@cache
def pictures() -> Tensor:
    """uint8 [COUNT, 40, 40, 3]: soft colours with edges, unlike on the left and on the right."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((COUNT, 3, 5, 5), dtype=np.float32))
    images = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear") * 0.6 + 0.1
    images[:, :, :, SIDE // 2 :] += 0.25
    return (images.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def in_0_1(inputs: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return inputs * std + mean


@cache
def ours() -> list[Tensor]:
    """Global [COUNT, 3, 32, 32] and local crops [COUNT * 4, 3, 16, 16] in 0..1."""
    return [in_0_1(crops) for crops in MultiCropAugmentation(SETTINGS)(pictures(), 0, 0)]


@cache
def torchvisions(kind: str) -> Tensor:
    """The same crops from torchvision's transforms, one image after the other, as DINO writes them."""
    from torchvision.transforms import v2 as transforms
    from torchvision.transforms.v2 import InterpolationMode

    local = kind == "local"
    size, scale = (16, CROPS.local_scale) if local else (32, CROPS.global_scale)
    steps = [
        transforms.RandomResizedCrop(size, scale, interpolation=InterpolationMode.BICUBIC, antialias=True),
        transforms.RandomHorizontalFlip(0.5),
        transforms.Lambda(lambda image: image.clamp(0, 1)),
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)], 0.8),
        transforms.RandomGrayscale(0.2),
        transforms.RandomApply([transforms.GaussianBlur(13, (0.1, 2.0))], 0.5 if local else 0.2),
    ]
    if not local:
        steps.append(transforms.RandomSolarize(0.5, 0.2))
    chain = transforms.Compose(steps)
    images = pictures().permute(0, 3, 1, 2).float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.stack([chain(image) for image in images])


def statistics(crops: Tensor) -> dict[str, Tensor]:
    """Per-crop numbers whose distributions are compared: each [n]."""
    left, right = crops.chunk(2, dim=3)
    spread = crops.amax(1) - crops.amin(1)
    edges = (crops[:, :, :, 1:] - crops[:, :, :, :-1]).abs().mean((1, 2, 3))
    return {
        **{f"mean of channel {c}": crops[:, c].mean((1, 2)) for c in range(3)},
        **{f"std of channel {c}": crops[:, c].std((1, 2)) for c in range(3)},
        "grey": (spread.amax((1, 2)) < 1e-4).float(),
        "colourfulness": spread.mean((1, 2)),
        "brighter on the right": (right.mean((1, 2, 3)) > left.mean((1, 2, 3))).float(),
        "edges": edges,
        "soft": (edges < 0.01).float(),
        "dark": (crops < 0.2).float().mean((1, 2, 3)),
        "bright": (crops > 0.8).float().mean((1, 2, 3)),
    }


@pytest.mark.parametrize("kind", ["global", "local"])
def test_pixels_have_the_statistics_of_torchvision(kind: str) -> None:
    batch, single = statistics(ours()[kind == "local"]), statistics(torchvisions(kind))
    for name, values in batch.items():
        other = single[name]
        # Five standard errors: with 13 numbers of two kinds a right implementation fails once in 100,000 seeds.
        groups = values.view(COUNT, -1).mean(1)  # the crops of an image are not independent
        error = math.sqrt(groups.var().item() / COUNT + other.var().item() / COUNT)
        assert abs(values.mean() - other.mean()).item() < 5 * error + 1e-6, name
    for name in ("mean of channel 0", "colourfulness", "edges"):
        assert batch[name].var().item() == pytest.approx(single[name].var().item(), rel=0.25), name


@cache
def drawn(kind: str, count: int = 20_000) -> Draws:
    view = View(1, 32, CROPS.global_scale, 0.2, 0.2) if kind == "global" else View(4, 16, CROPS.local_scale, 0.5, 0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return draw(view, CROPS, count // view.crops, 90, 120)


def boxes_of_torchvision(kind: str, count: int) -> Tensor:
    from torchvision.transforms import RandomResizedCrop

    scale = list(CROPS.global_scale if kind == "global" else CROPS.local_scale)
    image = torch.zeros(3, 90, 120)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        found = [RandomResizedCrop.get_params(image, scale, [3 / 4, 4 / 3]) for _ in range(count)]
    top, left, height, width = torch.tensor(found).unbind(1)
    return torch.stack([left, top, width, height], dim=1)


@pytest.mark.parametrize("kind", ["global", "local"])
def test_crop_scales_aspects_and_places_are_distributed_as_torchvisions(kind: str) -> None:
    from scipy.stats import ks_2samp

    mine, theirs = drawn(kind).boxes.double(), boxes_of_torchvision(kind, 4000).double()
    for number in (
        lambda box: box[:, 2] * box[:, 3],  # area
        lambda box: box[:, 2] / box[:, 3],  # aspect
        lambda box: box[:, 0] / (121 - box[:, 2]),  # place
        lambda box: box[:, 1] / (91 - box[:, 3]),
    ):
        assert ks_2samp(number(mine).numpy(), number(theirs).numpy()).pvalue > 1e-4
    low, high = CROPS.global_scale if kind == "global" else CROPS.local_scale
    share = mine[:, 2] * mine[:, 3] / (90 * 120)
    assert low - 0.01 < share.min() < low + 0.02 and high - 0.05 < share.max() < high + 0.01


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("global", "mirrored", 0.5),
        ("global", "jittered", 0.8),
        ("global", "grey", 0.2),
        ("global", "blurred", 0.2),
        ("global", "solarized", 0.2),
        ("local", "mirrored", 0.5),
        ("local", "blurred", 0.5),
        ("local", "solarized", 0.0),
    ],
)
def test_shares_are_those_of_the_recipe(kind: str, name: str, expected: float) -> None:
    share = getattr(drawn(kind), name).double().mean().item()
    assert abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / 20_000)


def test_factors_reach_their_ends_and_no_further_and_orders_are_all_drawn() -> None:
    draws = drawn("local")
    ends = torch.tensor([0.4, 0.4, 0.2, 0.2 * math.pi])
    middle = torch.tensor([1.0, 1.0, 1.0, 0.0])
    for found, expected in ((draws.factors.amin(0), middle - ends), (draws.factors.amax(0), middle + ends)):
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=0)
    assert 0.1 <= draws.sigma.min() < 0.102 and 1.998 < draws.sigma.max() <= 2.0
    assert len({tuple(order) for order in draws.order.tolist()}) == 24


def test_workers_parts_make_the_global_batch_crop_by_crop() -> None:
    images, augment = pictures()[:8], MultiCropAugmentation(SETTINGS)
    whole = augment(images, 1, 2)
    parts = [augment(images[4 * part : 4 * part + 4], 1, 2, part, 2) for part in range(2)]
    assert [tuple(crops.shape) for crops in whole] == [(8, 3, 32, 32), (32, 3, 16, 16)]
    for resolution in range(2):
        together = torch.cat([part[resolution] for part in parts])
        torch.testing.assert_close(together, whole[resolution], atol=1e-5, rtol=0)


def test_the_forwards_of_a_step_share_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn for the whole global batch in every forward, they would cost as many times as there are forwards."""
    calls: list[int] = []

    def counted(view: View, *rest: Any) -> Draws:
        calls.append(view.size)
        return draw(view, *rest)

    monkeypatch.setattr("pipeline.core.multi_crop.draw", counted)
    augment = MultiCropAugmentation(SETTINGS)
    for step in (0, 1):
        for part in range(2):
            augment(pictures()[:4], 0, step, part, 2)
    assert calls == [32, 16] * 2


def test_crops_of_an_image_lie_side_by_side() -> None:
    grey = (torch.arange(8, dtype=torch.uint8) * 30).view(8, 1, 1, 1).expand(8, SIDE, SIDE, 3)
    flat = SETTINGS.model_copy(update={"multi_crop": CROPS.model_copy(update={"jitter_probability": 0.0})})
    local = in_0_1(MultiCropAugmentation(flat)(grey, 0, 0)[1]).mean((1, 2, 3)) * 255
    torch.testing.assert_close(local, (torch.arange(8) * 30.0).repeat_interleave(4), atol=0.5, rtol=0)


@pytest.mark.parametrize(
    ("input_size", "local_size", "too_wide", "says"),
    [
        (32, 12, 3.7, "a crop of multi_crop.local_size 12; end it at 3.66 or raise multi_crop.local_size"),
        (16, 96, 5.1, "a crop of input_size 16; end it at 5 or raise input_size"),
    ],
)
def test_a_blur_is_as_wide_as_the_smallest_crop_takes_and_no_wider(
    input_size: int, local_size: int, too_wide: float, says: str
) -> None:
    def settings(sigma: float, **changes: Any) -> TrainConfig:
        blur = {"global_blur_probability": 1, "local_blur_probability": 1, **changes}
        crops = {"num_local": 1, "local_size": local_size, "blur_sigma": [0.1, sigma], **blur}
        return TrainConfig.model_validate(
            {"input_size": input_size, "augmentation": "dino_multicrop", "multi_crop": crops}
        )

    widest = (min(input_size, local_size) - 1) / 3
    assert len(MultiCropAugmentation(settings(widest))(pictures()[:2], 0, 0)) == 2
    with pytest.raises(ValueError, match=re.escape(says)):
        settings(too_wide)
    settings(too_wide, global_blur_probability=0, local_blur_probability=0)


def test_without_any_chance_a_crop_is_only_cut_and_resized() -> None:
    pixels = pictures()[:2].permute(0, 3, 1, 2).float() / 255
    off, box = torch.zeros(2, dtype=torch.bool), torch.tensor([[4, 6, 16, 16], [0, 0, 16, 16]])
    draws = Draws(box, off, off, torch.ones(2, 4), torch.arange(4).expand(2, 4), off, off, torch.ones(2), off)
    expected = torch.stack([pixels[0, :, 6:22, 4:20], pixels[1, :, :16, :16]])
    torch.testing.assert_close(render(pixels, draws, 16, CROPS), expected)


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    MultiCropAugmentation(SETTINGS)(pictures()[:2], 0, 0)
    assert torch.equal(torch.rand(4), expected)

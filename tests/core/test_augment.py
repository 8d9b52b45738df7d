"""Training augmentation and the scoring transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.core.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PytorchAugmentation,
    eval_crop,
    eval_transform,
    normalise,
    resize_and_crop,
)
from pipeline.core.train_config import TrainConfig

SETTINGS = TrainConfig(input_size=32, min_crop_scale=0.3, seed=4)


def random_images(count: int, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


def in_0_1(inputs: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return inputs * std + mean


def test_workers_parts_make_the_global_batch() -> None:
    augment, images = PytorchAugmentation(SETTINGS), random_images(8)
    (whole,) = augment(images, epoch=1, step=2)
    parts = [augment(images[4 * part : 4 * part + 4], 1, 2, part, num_parts=2)[0] for part in range(2)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize("change", [{"epoch": 1}, {"step": 1}, {"seed": 5}])
def test_draws_differ_by_epoch_step_and_seed(change: dict[str, int]) -> None:
    images = random_images(4)
    (first,) = PytorchAugmentation(SETTINGS)(images, epoch=0, step=0)
    where = {"epoch": 0, "step": 0, **{k: v for k, v in change.items() if k != "seed"}}
    other = PytorchAugmentation(SETTINGS.model_copy(update={"seed": change.get("seed", 4)}))(images, **where)[0]
    assert not torch.equal(first, other)
    assert torch.equal(first, PytorchAugmentation(SETTINGS)(images, epoch=0, step=0)[0])


def test_draws_differ_between_the_images_of_a_batch() -> None:
    same = random_images(1).expand(16, -1, -1, -1)
    assert len({tuple(image.flatten().tolist()) for image in PytorchAugmentation(SETTINGS)(same, 0, 0)[0]}) == 16


def test_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    PytorchAugmentation(SETTINGS)(random_images(2), 0, 0)
    assert torch.equal(torch.rand(4), expected)


def test_without_cropping_an_image_is_itself_or_its_mirror() -> None:
    images = random_images(64)
    augmented = PytorchAugmentation(SETTINGS.model_copy(update={"min_crop_scale": 1.0}))(images, 0, 0)[0]
    plain = eval_transform(images, 32)
    as_is = (augmented - plain).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (augmented - plain.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    # A crop of the whole area still draws its ratio: one that does not fit falls back to the whole image, one that
    # rounds to a pixel less may fit.
    assert (as_is | mirrored).float().mean() > 0.8
    assert 0.25 < mirrored.float().mean() < 0.75


def test_crop_keeps_at_least_the_given_share_and_reaches_it() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).view(1, 1, 32, 1).expand(256, 32, 32, 3)  # value = column
    out = in_0_1(PytorchAugmentation(SETTINGS)(ramp, 0, 0)[0])[:, 0] * 255
    widths = (out.amax((1, 2)) - out.amin((1, 2)) + 1) / 32
    lower = (0.3 * 3 / 4) ** 0.5  # the narrowest crop of the smallest area
    assert widths.min() > lower - 0.04
    assert widths.min() < 0.62
    assert widths.max() > 0.97


def test_crops_and_flips_have_the_statistics_of_torchvisions_image_by_image() -> None:
    from torchvision.transforms import v2 as transforms

    count, height, width = 2000, 48, 64
    across = torch.linspace(0, 1, width).expand(height, -1)
    down = torch.linspace(0, 1, height)[:, None].expand(-1, width)
    picture = torch.stack([across, down, torch.zeros(height, width)])

    def about(crops: torch.Tensor) -> dict[str, torch.Tensor]:
        """Where each crop lies (mean of a ramp), how large it is (its deviation), whether it is mirrored."""
        ramps = crops[:, :2]
        mirrored = (ramps[:, 0, :, -1] < ramps[:, 0, :, 0]).float().mean(1)
        place, size = ramps.mean((2, 3)), ramps.std((2, 3))
        return {"left": place[:, 0], "top": place[:, 1], "width": size[:, 0], "height": size[:, 1], "flip": mirrored}

    pixels = (picture * 255).round().to(torch.uint8).permute(1, 2, 0).expand(count, -1, -1, -1)
    ours = about(in_0_1(PytorchAugmentation(SETTINGS)(pixels, 0, 0)[0]))
    reference = transforms.Compose([transforms.RandomResizedCrop(32, (0.3, 1.0)), transforms.RandomHorizontalFlip()])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = about(torch.stack([reference(picture) for _ in range(count)]))
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    assert abs(ours.pop("flip").mean() - theirs.pop("flip").mean()) < 0.05
    for name, values in ours.items():
        torch.testing.assert_close(values.quantile(levels), theirs[name].quantile(levels), atol=0.025, rtol=0, msg=name)


def test_scoring_an_image_of_input_size_only_normalises() -> None:
    images = random_images(3)
    expected = images.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(in_0_1(eval_transform(images, 32)), expected)


@pytest.mark.parametrize("resize", [None, 37])
@pytest.mark.parametrize(("height", "width"), [(48, 65), (65, 48), (20, 20), (101, 67), (33, 36)])
def test_it_is_torchvisions_resize_and_centre_crop(height: int, width: int, resize: int | None) -> None:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import v2 as transforms

    ramp = np.linspace(0, 255, height * width).reshape(height, width)
    picture = np.stack([ramp, ramp[::-1], np.tile(np.linspace(255, 0, width), (height, 1))], axis=2).astype(np.uint8)
    size = resize or 32
    reference = transforms.Compose(
        [transforms.Resize(size, InterpolationMode.BICUBIC), transforms.CenterCrop(32)]  # of a PIL image
    )
    expected = np.asarray(reference(Image.fromarray(picture)), np.float32)
    ours = resize_and_crop(torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float() / 255, 32, resize)
    assert ours.shape == (1, 3, 32, 32)
    assert np.abs(255 * ours[0].permute(1, 2, 0).numpy() - expected).max() <= 1.5
    crop = eval_crop(torch.from_numpy(picture)[None], 32, resize)
    assert crop.dtype == torch.uint8 and crop.shape == (1, 32, 32, 3)
    assert np.abs(crop[0].numpy().astype(np.float32) - expected).max() <= 2


def test_normalising_can_be_exported_and_leaves_nothing_behind() -> None:
    """A kept tensor would be one of the export's, which holds no numbers."""

    class Normalise(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return normalise(images)

    images = torch.rand(2, 3, 4, 4)
    for _ in range(2):
        exported = torch.export.export(Normalise(), (images,)).module()
        assert torch.equal(exported(images), normalise(images))

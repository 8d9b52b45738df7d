"""Frozen encoders: the trained classifier without its head, and the two baselines every feature must beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.core.artifact import Store
from pipeline.core.classifier import build_classifier, load_classifier
from pipeline.core.identity import content_hash
from pipeline.core.train_config import TrainConfig

PIXEL_SIDE = 32
"""Pixels of the side to which the raw-pixel baseline shrinks images: 3,072 numbers."""
RANDOM, PIXELS = "random weights", "raw pixels"


class Pixels(nn.Module):
    """No encoder at all: the image, shrunk to `PIXEL_SIDE`."""

    def forward(self, images: Tensor) -> Tensor:
        """Images float32 [n, 3, S, S] to float32 [n, 3 * 32 * 32]."""
        if images.shape[-1] > PIXEL_SIDE:
            images = F.interpolate(images, (PIXEL_SIDE, PIXEL_SIDE), mode="bilinear", antialias=True)
        return images.flatten(1)


@dataclass(frozen=True)
class Encoder:
    """What turns images into features, not loaded yet.

    Args:
        id: names it in cache, tables and JSON.
        group: encoders of one group differ in nothing but a seed; a row of a table is a group.
        seed: of the training or of the random weights.
        input_size: pixels of the square input.
        model_dir: of a trained model, or empty for a baseline.
        weights: what decides the numbers, JSON-able.
    """

    id: str
    group: str
    seed: int
    input_size: int
    model_dir: str
    weights: str

    @property
    def fingerprint(self) -> str:
        """sha256 of what decides the features of an image, 64 hex digits."""
        return content_hash([self.weights, self.input_size])

    def load(self, store: Store) -> nn.Module:
        """The network, in eval mode on the CPU: images float32 [n, 3, S, S] to features float32 [n, d].

        d is 2048 for a ResNet50 (`fc` is the identity) and 3 * 32 * 32 for raw pixels.
        """
        if self.group == PIXELS:
            return Pixels()
        network = (
            load_classifier(store, self.model_dir).model
            if self.model_dir
            else build_classifier(TrainConfig(seed=self.seed), 1)
        )
        network.fc = nn.Identity()
        return network.eval()


def random_encoder(seed: int, input_size: int) -> Encoder:
    """A ResNet50 as it is before training: initial weights, batch norms with mean 0 and variance 1."""
    return Encoder(f"random-{seed}", RANDOM, seed, input_size, "", f"resnet50 initial weights, seed {seed}")


def pixel_encoder(input_size: int) -> Encoder:
    """The image itself, resized and cropped as for a network, then shrunk to `PIXEL_SIDE`."""
    return Encoder("pixels", PIXELS, 0, input_size, "", f"pixels {PIXEL_SIDE}")

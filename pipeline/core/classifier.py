"""The classifier: torchvision's ResNet50 with a cosine or a linear head, and its weights' file.

Heads and recipe: trex, the code base beside the paper (Sariyildiz et al., CVPR 2023). The weights' names are
torchvision's own, so a `model.safetensors` of a cosine head loads strictly into `resnet50()` with a bias-free `fc`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from pipeline.core.artifact import Store, read_manifest, sha256_bytes
from pipeline.core.errors import InputError, WorkError
from pipeline.core.model_identity import CONFIG, WEIGHTS
from pipeline.core.separate_batch_norm import plain_state
from pipeline.core.train_config import TrainConfig

_AGAIN = "remove the directory and run jobs.train again"
NUM_FEATURES = 2048
"""Width of the pooled feature that the head reads."""


class CosineLinear(nn.Linear):
    """Bias-free cosine softmax: logits are cosines of feature and class weight over `temperature`, in -1/tau..1/tau."""

    def __init__(self, in_features: int, out_features: int, temperature: float) -> None:
        super().__init__(in_features, out_features, bias=False)
        self.temperature = temperature

    def forward(self, features: Tensor) -> Tensor:
        """Features [N, in_features] to logits float32 [N, out_features]; never in half precision, 8 bits blur 1/tau."""
        with torch.autocast(features.device.type, enabled=False):
            return F.linear(F.normalize(features.float(), dim=1), F.normalize(self.weight, dim=1)) / self.temperature


class ResNet50(torchvision.models.ResNet):  # type: ignore[misc]  # torchvision has no types
    """torchvision's ResNet50, names, weights and results alike, that takes several resolutions in one call."""

    def __init__(self) -> None:
        super().__init__(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3])

    def forward(self, *crops: Tensor) -> Tensor:
        """Images float32 [N_i, 3, S_i, S_i] by resolution to logits [sum of N_i, classes] by one pass of the head."""
        features = [self.pooled(images) for images in crops]
        logits: Tensor = self.fc(features[0] if len(features) == 1 else torch.cat(features))
        return logits

    def pooled(self, images: Tensor) -> Tensor:
        """The feature [N, 2048] that the head reads."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(self.avgpool(x), 1)


def build_classifier(config: TrainConfig, num_classes: int) -> nn.Module:
    """An untrained ResNet50 on the CPU, its weights drawn by `config.seed`: images float32 [N, 3, S, S] to logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = ResNet50()
        if config.head == "cosine":
            model.fc = CosineLinear(NUM_FEATURES, num_classes, config.temperature)
        else:
            model.fc = nn.Linear(NUM_FEATURES, num_classes)
    network: nn.Module = model.to(memory_format=torch.channels_last)
    return network


def weights_to_bytes(model: nn.Module) -> bytes:
    """The weights and batch-norm statistics as a safetensors file, float32, from the CPU; those of a plain ResNet50."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in plain_state(model).items()}
    data: bytes = save_safetensors(state)
    return data


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained model as evaluation needs it.

    Args:
        model: on the CPU, in eval mode.
        train: the settings it was trained with (input size, head, seed, data).
        class_names: short names in label order.
        wnids: WNIDs in label order.
        manifest: of the model's directory.
        weights_sha256: of the file of weights.
    """

    model: nn.Module
    train: TrainConfig
    class_names: list[str]
    wnids: list[str]
    manifest: dict[str, Any]
    weights_sha256: str


def read_settings(store: Store, model_dir: str) -> tuple[dict[str, Any], TrainConfig]:
    """What a model was trained with: its config.json (`class_names`, `wnids`, as many), and its `train` as a config.

    Raises:
        InputError: the file is not there.
        WorkError: it is damaged.
    """
    path = f"{model_dir}/{CONFIG}"
    try:
        settings = store.read_json(path, _AGAIN)
        train = TrainConfig.model_validate(settings["train"])
    except FileNotFoundError as error:
        raise InputError(f"{store.uri(model_dir)} has no {CONFIG}; {_AGAIN}") from error
    except ValidationError as error:
        raise WorkError(f"{store.uri(path)} is damaged (no training settings); {_AGAIN}") from error
    names, wnids = settings["class_names"], settings["wnids"]
    if not (isinstance(names, list) and isinstance(wnids, list) and len(names) == len(wnids)):
        raise WorkError(f"{store.uri(path)} is damaged (no names of classes); {_AGAIN}")
    return settings, train


def load_classifier(store: Store, model_dir: str) -> TrainedClassifier:
    """A finished model of `jobs.train`.

    Raises:
        InputError: it is not there, or not finished.
        WorkError: a file of it is damaged.
    """
    manifest = read_manifest(store, model_dir, "run `python -m jobs.train` with the same preset and settings first")
    settings, train = read_settings(store, model_dir)
    model = build_classifier(train, len(settings["wnids"]))
    try:
        weights = store.read_bytes(f"{model_dir}/{WEIGHTS}")
    except FileNotFoundError as error:
        raise InputError(f"{store.uri(model_dir)} has no {WEIGHTS}; {_AGAIN}") from error
    try:
        model.load_state_dict(load_safetensors(weights))
    except (SafetensorError, json.JSONDecodeError, RuntimeError) as error:
        raise WorkError(
            f"{store.uri(model_dir)}/{WEIGHTS} is damaged ({str(error).splitlines()[0]}); {_AGAIN}"
        ) from error
    names = {"class_names": settings["class_names"], "wnids": settings["wnids"]}
    return TrainedClassifier(model.eval(), train, **names, manifest=manifest, weights_sha256=sha256_bytes(weights))

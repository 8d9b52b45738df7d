"""The network and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load as load_safetensors
from torch import nn

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.classifier import CosineLinear, build_classifier, load_classifier, weights_to_bytes
from pipeline.core.errors import InputError, OutageError, WorkError
from pipeline.core.model_identity import CONFIG, WEIGHTS
from pipeline.core.train_config import TrainConfig

SETTINGS = TrainConfig(input_size=32, temperature=0.1)


def test_cosine_head_gives_cosines_over_temperature() -> None:
    head = CosineLinear(8, 3, temperature=0.1)
    features = torch.randn(5, 8)
    cosines = torch.stack([torch.cosine_similarity(features, weight[None]) for weight in head.weight], dim=1)
    torch.testing.assert_close(head(features), cosines / 0.1)


def test_cosine_head_stays_in_float32_under_autocast() -> None:
    head = CosineLinear(8, 3, temperature=0.1)
    features = torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head(features), rtol=0, atol=0)


@pytest.mark.parametrize("head", ["cosine", "linear"])
def test_seed_decides_the_initial_weights_and_nothing_else_does(head: str) -> None:
    settings = TrainConfig(head=head, input_size=32, seed=1)
    first = build_classifier(settings, 10).state_dict()
    torch.rand(3)
    again = build_classifier(settings, 10).state_dict()
    other = build_classifier(settings.model_copy(update={"seed": 2}), 10).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_building_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    build_classifier(SETTINGS, 10)
    assert torch.equal(torch.rand(4), expected)


def test_weights_load_strictly_into_torchvisions_resnet50() -> None:
    network = torchvision.models.resnet50()
    network.fc = nn.Linear(2048, 10, bias=False)
    network.load_state_dict(load_safetensors(weights_to_bytes(build_classifier(SETTINGS, 10))), strict=True)


def publish(store: Store, weights: bytes) -> None:
    names = {"class_names": ["shirt", "bag"], "wnids": ["n00000001", "n00000002"]}
    store.write_bytes(f"models/x/{WEIGHTS}", weights)
    store.write_json(f"models/x/{CONFIG}", {"train": SETTINGS.model_dump(mode="json"), **names})
    store.write_json(f"models/x/{MANIFEST}", {"model": "x"})


def test_saved_model_is_loaded_as_it_was(tmp_root: str) -> None:
    store = Store.open(tmp_root)
    network = build_classifier(SETTINGS, 2)
    network(torch.rand(4, 3, 32, 32))  # moves the running statistics of the batch norms
    publish(store, weights_to_bytes(network))
    loaded = load_classifier(store, "models/x")
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), network.eval()(images))
    assert (loaded.train, loaded.class_names, loaded.manifest["model"]) == (SETTINGS, ["shirt", "bag"], "x")


def test_unfinished_model_is_an_input_error(tmp_root: str) -> None:
    store = Store.open(tmp_root)
    store.write_bytes(f"models/x/{WEIGHTS}", b"")
    with pytest.raises(InputError, match=r"jobs\.train"):
        load_classifier(store, "models/x")


@pytest.mark.parametrize("weights", [b"no weights", weights_to_bytes(build_classifier(SETTINGS, 3))[:1000]])
def test_damaged_weights_are_a_work_error(tmp_root: str, weights: bytes) -> None:
    store = Store.open(tmp_root)
    publish(store, weights)
    with pytest.raises(WorkError, match=r"model\.safetensors is damaged"):
        load_classifier(store, "models/x")


NAMES = {"class_names": ["shirt"], "wnids": ["n00000001"]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"train": {}},
        {**NAMES, "train": 3},
        {**NAMES, "train": {"no_such_setting": 1}},
        {"train": {}, "class_names": ["shirt"], "wnids": None},
        {"train": {}, "class_names": ["shirt", "bag"], "wnids": ["n00000001"]},
    ],
)
def test_damaged_settings_are_a_work_error(tmp_root: str, settings: dict[str, Any]) -> None:
    store = Store.open(tmp_root)
    publish(store, b"")
    store.write_json(f"models/x/{CONFIG}", settings)
    with pytest.raises(WorkError, match=r"x/config\.json is damaged .*; remove the directory and run jobs\.train"):
        load_classifier(store, "models/x")


def test_lost_settings_are_an_input_error(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    publish(store, b"")
    (tmp_path / "models/x" / CONFIG).unlink()
    with pytest.raises(InputError, match=r"models/x has no config\.json; remove the directory and run jobs\.train"):
        load_classifier(store, "models/x")


def test_it_is_torchvisions_resnet50_and_several_resolutions_are_several_passes_with_one_head() -> None:
    from torchvision.models import resnet50

    network = build_classifier(SETTINGS, 10).eval()
    plain = resnet50()
    plain.fc = network.fc
    plain.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 32, 32), torch.rand(3, 3, 16, 16)
    with torch.inference_mode():
        logits = network(*images)
        expected = torch.cat([plain.eval()(part) for part in images])
    torch.testing.assert_close(logits, expected)


def test_a_storage_that_does_not_answer_is_no_damage(tmp_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.open(tmp_root)
    publish(store, b"")

    def fails(self: Store, path: str) -> bytes:
        if path.endswith(WEIGHTS):
            raise OutageError("the store does not answer")
        return real(self, path)

    real = Store.read_bytes
    monkeypatch.setattr(Store, "read_bytes", fails)
    with pytest.raises(OutageError, match="^the store does not answer$"):
        load_classifier(store, "models/x")

"""From trainings to a proposal; their confusions are made up by known laws, one model is a real one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.classifier import build_classifier, weights_to_bytes
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.growth import Counts
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.sweep_config import ValidationConfig
from pipeline.stages import growth as module
from pipeline.stages.growth import GrowthRequest, propose_growth, score_models
from tests.image_sets import small_config

SIZES = (8, 16, 32)
REQUEST = GrowthRequest(1000, 32, ValidationConfig(images_per_class=1000), "studies/growth-x", small_config())
TRAININGS = {size: [small_config(images_per_class=size, seed=seed) for seed in (0, 1)] for size in SIZES}


def finished(store: Store) -> Store:
    """A store in which every training is finished, by its manifest alone."""
    for configs in TRAININGS.values():
        for config in configs:
            directory = model_directory(model_identity(config, resolve_recipe(config))[1])
            store.write_json(f"{directory}/{MANIFEST}", {})
    return store


def confusions_of(amplitudes: Sequence[float]) -> dict[int, list[Counts]]:
    """Of 1,000 images of each class: class c is taken for its neighbour of the pair as its law says."""
    found = {}
    for size in SIZES:
        wrong = np.rint(1000 * np.array(amplitudes) * size**-0.5).astype(np.int64)
        counts = np.diag(1000 - wrong)
        counts[np.arange(10), np.arange(10) ^ 1] += wrong
        found[size] = [counts, counts]
    return found


def given(monkeypatch: pytest.MonkeyPatch, confusions: Mapping[int, list[Counts]]) -> None:
    monkeypatch.setattr(module, "score_models", lambda *_, **__: confusions)


def test_a_pair_of_hard_classes_gets_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = finished(Store.open(str(tmp_path)))
    given(monkeypatch, confusions_of([0.1, 0.1, 1.0, 1.2, *[0.1] * 6]))
    text, facts = propose_growth(TRAININGS, REQUEST, store, print)
    images = [line["images"] for line in facts["classes"]]
    assert sum(images) == 1000 and images[2] == images[3] > 5 * images[0]
    assert facts["exponent"] == pytest.approx(0.5, abs=0.02)
    names = {"growth.csv", "growth.yaml", "growth-x.yaml", "growth.md", "growth.json"}
    assert set(store.list_names("studies/growth-x")) == names
    assert store.read_json("studies/growth-x/growth.json")["classes"] == facts["classes"]
    assert text in store.read_bytes("studies/growth-x/growth.md").decode()


def test_on_a_cluster_a_gpu_s_scores_are_made_on_another_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, confusions_of([0.5] * 10))
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    sent: list[str] = []

    def there(function: Callable[..., dict[str, Any]], device: str, _timeout_s: float, *words: Any) -> dict[str, Any]:
        sent.append(device)
        return function(*words)

    monkeypatch.setattr(module, "on_a_gpu_node", there)
    on_cuda = {
        size: [c.model_copy(update={"evaluate": c.evaluate.model_copy(update={"device": "cuda"})}) for c in configs]
        for size, configs in TRAININGS.items()
    }
    _, facts = propose_growth(on_cuda, REQUEST, finished(Store.open(str(tmp_path))), print)
    assert sent == ["evaluate.device"] and len(facts["classes"]) == 10


def test_the_start_may_be_below_the_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = finished(Store.open(str(tmp_path)))
    given(monkeypatch, confusions_of([0.5] * 10))
    request = GrowthRequest(500, 8, REQUEST.validation, "studies/growth-x", small_config())
    _, facts = propose_growth(TRAININGS, request, store, print)
    assert {line["images"] for line in facts["classes"]} == {50}  # equal classes
    assert facts["classes"][0]["accuracy"] == pytest.approx(1 - 0.5 * 8**-0.5, abs=1e-3)


def test_a_training_that_is_not_finished_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with pytest.raises(InputError, match="6 of 6 trainings are not finished .*models/.*run `python -m tune.scaling`"):
        propose_growth(TRAININGS, REQUEST, store, print)
    assert not store.list_names("studies/growth-x")


def test_less_than_a_batch_is_refused(tmp_path: Path) -> None:
    request = GrowthRequest(49, 32, REQUEST.validation, "studies/growth-x", small_config())
    with pytest.raises(InputError, match="--images 49 is less than one batch of 50"):
        propose_growth(TRAININGS, request, Store.open(str(tmp_path)), print)


def test_an_accuracy_that_does_not_grow_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flat = confusions_of([0.5] * 10)[8]
    given(monkeypatch, dict.fromkeys(SIZES, flat))
    with pytest.raises(InputError, match="no growth can be proposed: the accuracy does not grow"):
        propose_growth(TRAININGS, REQUEST, finished(Store.open(str(tmp_path))), print)


def test_a_model_is_scored_on_validation_images_only(tmp_path: Path) -> None:
    """Random weights: what it says is nothing worth, but every image is counted once in its row."""
    store, config = Store.open(str(tmp_path)), small_config()
    recipe = resolve_recipe(config)
    names = {"class_names": recipe.classes.names, "wnids": recipe.classes.wnids}
    store.write_json("models/a/config.json", {"train": config.train.model_dump(mode="json"), **names})
    store.write_bytes("models/a/model.safetensors", weights_to_bytes(build_classifier(config.train, 10)))
    store.write_json(f"models/a/{MANIFEST}", {})
    said: list[str] = []
    trainings: dict[int, list[RunConfig]] = {8: [config]}
    validation = ValidationConfig(images_per_class=7)
    found = score_models(trainings, {8: ["models/a"]}, recipe, validation, store, say=said.append)
    assert found[8][0].sum(axis=1).tolist() == [7] * 10
    assert "8 per class, seed 0: accuracy" in said[0] and "on 70 validation images" in said[0]

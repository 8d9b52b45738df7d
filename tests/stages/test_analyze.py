import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from pipeline.core.config import RunConfig
from pipeline.core.encoders import Encoder, random_encoder
from pipeline.core.errors import InputError
from pipeline.core.feature_analysis import analyse
from pipeline.core.features import features_of
from pipeline.core.test_set_opening import MAIN, open_test_sets
from pipeline.stages.analyze import analyze
from pipeline.stages.run_handle import RunHandle
from tests.transfer_layouts import picture


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """Three grey test images of each class."""
    root = tmp_path_factory.mktemp("real")
    for label, wnid in enumerate(load_class_table("fashion_mnist").wnids):
        for number in range(3):
            picture(root / wnid / f"{number}.png", 20 * label + number)
    evaluate = {"test_set": str(root), "torch_threads": 1}
    return RunConfig.model_validate(
        {"evaluate": evaluate, "analyze": {"tsne_images": 20}, "tracking": {"enabled": False}}
    )


def test_numbers_are_those_of_each_encoder_and_a_row_is_their_mean(
    config: RunConfig, tmp_path: Path, save_model, monkeypatch: pytest.MonkeyPatch
):
    store, said = Store.open(str(tmp_path)), []
    trained = Encoder("m", "real, 3 per class", 0, 32, save_model(store, "real"), "w")
    encoders = [trained, random_encoder(1, 32), random_encoder(2, 32)]
    manifest = analyze(config, store, encoders, said.append)
    real, random = store.read_json(manifest["metrics"])["rows"]
    images = open_test_sets(config.evaluate, load_class_table("fashion_mnist"), None)[0][MAIN].images
    direct = {
        encoder.id: analyse(
            *features_of(encoder, images, store, batch_size=9, device="cpu", torch_threads=1), config.analyze
        )
        for encoder in encoders
    }
    assert real["encoders"] == {"m": direct["m"].as_dict()} and real["redundancy"]["std"] is None
    lengths = [direct[name].coding_length for name in ("random-1", "random-2")]
    assert random["coding_length"]["mean"] == pytest.approx(np.mean(lengths))
    assert random["coding_length"]["std"] == pytest.approx(np.std(lengths, ddof=1))
    assert len(said) == 3 and "coding_length" in said[0]
    with Image.open(io.BytesIO(store.read_bytes(manifest["map"]))) as image:
        assert image.width > 1.5 * image.height  # two groups, two panels
    told: dict[str, object] = {}
    monkeypatch.setattr(RunHandle, "log_metrics", lambda _self, metrics, step: told.update(metrics))
    monkeypatch.setattr(RunHandle, "log_artifact", lambda _self, name, content: told.update({name: content}))
    assert analyze(config, store, encoders, said.append) == manifest and len(said) == 3
    assert told["map.png"] == store.read_bytes(manifest["map"])  # what a lost server missed is told again
    assert told[f"{random['group']}/coding_length"] == random["coding_length"]["mean"]


def test_no_map_is_drawn_when_none_is_wanted(config: RunConfig, tmp_path: Path):
    plain = config.model_copy(update={"analyze": config.analyze.model_copy(update={"tsne_images": 0})})
    store = Store.open(str(tmp_path))
    manifest = analyze(plain, store, [random_encoder(0, 32)], lambda _: None)
    assert manifest["map"] is None
    assert store.list_names(f"analysis/{manifest['analysis_id']}") == ["manifest.json", "metrics.json"]


def test_a_set_that_takes_the_place_of_a_missing_one_is_told(config: RunConfig, tmp_path: Path):
    sets = {"test_set": str(tmp_path / "nothing"), "test_sets": {"mine": config.evaluate.test_set}}
    moved = RunConfig.model_validate({**config.model_dump(), "evaluate": {**config.evaluate.model_dump(), **sets}})
    said: list[str] = []
    analyze(moved, Store.open(str(tmp_path / "runs")), [random_encoder(0, 32)], said.append)
    assert said[0].startswith("analyze: left out: test set") and "nothing" in said[0]


def test_a_wrong_test_set_is_refused_and_nothing_is_written(config: RunConfig, tmp_path: Path):
    wrong = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"test_set": "nothing"})})
    with pytest.raises(InputError, match="is no folder"):
        analyze(wrong, Store.open(str(tmp_path / "runs")), [random_encoder(0, 32)], lambda _: None)
    assert not (tmp_path / "runs").exists()

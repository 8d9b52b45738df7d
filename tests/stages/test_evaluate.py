import io
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.core.artifact import Store
from pipeline.core.augment import eval_transform
from pipeline.core.classes import load_class_table
from pipeline.core.classifier import build_classifier
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.errors import InputError
from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.identity import image_id
from pipeline.core.schema import IMAGE_SCHEMA
from pipeline.core.scoring import score_sets
from pipeline.core.train_config import TrainConfig
from pipeline.stages.evaluate import evaluate

CLASSES = load_class_table("fashion_mnist")
RECIPE_HASH = "ab" * 32
IMAGES_DIR = f"images/{RECIPE_HASH[:16]}"
PER_CLASS = 3
SANDAL = "n04133789"


def png(value: int, size: int = 32) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(value).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def test_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of each class."""
    root = tmp_path_factory.mktemp("real")
    for label, wnid in enumerate(CLASSES.wnids):
        (root / wnid).mkdir()
        for number in range(3):
            (root / wnid / f"{number}.png").write_bytes(png(10 * label + number, 36))
    return root


def save_images(store: Store) -> None:
    """An image set as jobs.generate leaves it; its first row failed."""
    rows = []
    for index in range(PER_CLASS):
        for label, row in enumerate(CLASSES.rows):
            good = (label, index) != (0, 0)
            known = {"image_id": image_id(label, index), "class_index": label, "class_name": row["class_name"]}
            text = {"wnid": row["wnid"], "prompt": f"prompt of {label}", "template": "c"}
            chance = {"guidance_scale": 2.0, "seed": 77 + index}
            done = {"status": "ok" if good else "failed", "reason": None if good else "no", "seconds": 0.1}
            image = {"bytes": png(index) if good else None, "path": None}
            rows.append({**known, **text, **chance, **done, "token_count": 5, "truncated": False, "image": image})
    filled = [{**dict.fromkeys(IMAGE_SCHEMA.names), **row} for row in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(filled, schema=IMAGE_SCHEMA), sink)
    store.write_bytes(f"{IMAGES_DIR}/shards/shard-000000.parquet", sink.getvalue().to_pybytes())
    store.write_json(
        f"{IMAGES_DIR}/identity.json", {"recipe_hash": "a", "engine": {}, "batch_size": 1, "shard_size": len(rows)}
    )
    store.write_json(f"{IMAGES_DIR}/manifest.json", {"rows": len(rows), "seconds": 3.0, "images_per_s": 10.0})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(str(tmp_path_factory.mktemp("root")))
    save_images(store)
    return store


@pytest.fixture(scope="module")
def models(store: Store, save_model) -> dict[str, list[str]]:
    return {
        "synthetic": [save_model(store, "synthetic", seed) for seed in (0, 1)],
        "real": [save_model(store, "real", 0)],
    }


def config(test_folder: Path, enabled: bool = False, **evaluate_settings) -> RunConfig:
    given = {"test_set": str(test_folder), "batch_size": 8, "torch_threads": 1, **evaluate_settings}
    settings = EvaluateConfig.model_validate(given)
    return RunConfig(evaluate=settings, tracking=TrackingConfig(enabled=enabled))


@pytest.fixture(scope="module")
def manifest(store: Store, models, test_folder: Path) -> dict:
    return evaluate(config(test_folder, enabled=True), store, models)


def test_numbers_are_those_of_the_models(store: Store, models, manifest, test_folder: Path):
    metrics = store.read_json(manifest["metrics"])
    files = [test_folder / wnid / f"{n}.png" for wnid in CLASSES.wnids for n in range(3)]
    batch = torch.cat([eval_transform(torch.from_numpy(np.array(Image.open(f)))[None], 32) for f in files])
    labels = torch.arange(10).repeat_interleave(3)
    for seed, found in enumerate(metrics["groups"]["synthetic"]["models"]):
        network = build_classifier(TrainConfig(seed=seed, input_size=32), 10).eval()
        with torch.inference_mode():
            right = (network(batch).argmax(1) == labels).sum().item()
        assert found["top1_correct"] == right and found["images"] == 30
        assert found["model_id"] == models["synthetic"][seed].removeprefix("models/")
    assert metrics["groups"]["synthetic"]["training_images"] == 29  # of the model's manifest
    assert metrics["test_set"]["images"] == 30


def test_the_manifest_sums_up(store: Store, manifest):
    metrics = store.read_json(manifest["metrics"])
    assert manifest["synthetic_top1"] == metrics["groups"]["synthetic"]["top1_mean"]
    assert manifest["gap"] == pytest.approx(manifest["real_top1"] - manifest["synthetic_top1"])
    assert store.read_json(f"reports/{manifest['report_id']}/manifest.json") == manifest


def test_the_page_shows_the_image_set_and_the_costs(store: Store, manifest):
    page = store.read_bytes(manifest["report"]).decode()
    assert page.count("prompt of 0") == 2 and page.count("prompt of 1") == 3  # the row that failed is not shown
    assert "seed 78" in page and f"image {image_id(9, 2)}" in page
    assert "1 min 02 s" in page and "199.5" in page and "images/abababababababab" in page
    assert page.count("<img") == 29 + 30 + 2 + 1  # generated, tested, confusions, curves
    assert manifest["mlflow_run_id"] in page


def test_mlflow_has_the_run_with_numbers_and_files(store: Store, manifest):
    client = mlflow.MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    run = client.get_run(manifest["mlflow_run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["synthetic.top1_mean"] == manifest["synthetic_top1"]
    assert run.data.metrics["gap.top1"] == pytest.approx(manifest["gap"])
    assert run.data.tags["synthclones.parent.train.artifact_id"].count(",") == 2
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"config.yaml", "report.html", "confusion_synthetic.png", "confusion_real.png"}


def test_a_finished_report_is_not_made_again(store: Store, models, manifest, test_folder: Path):
    said = []
    assert evaluate(config(test_folder, enabled=True), store, models, said.append) == manifest
    assert said == []


def test_other_bins_are_another_report(store: Store, models, manifest, test_folder: Path):
    other = evaluate(config(test_folder, num_calibration_bins=5), store, {"real": models["real"]})
    assert other["report_id"] != manifest["report_id"]
    assert other["synthetic_top1"] is None and other["gap"] is None and other["mlflow_run_id"] is None


def test_a_finished_report_tells_mlflow_what_a_lost_server_missed(store: Store, models, manifest, test_folder: Path):
    settings = config(test_folder, num_calibration_bins=6)
    made = evaluate(settings, store, {"real": models["real"]})
    away = settings.model_copy(update={"tracking": TrackingConfig(uri="http://127.0.0.1:9")})
    assert evaluate(away, store, {"real": models["real"]}) == made  # nothing is to be paid for: no reason to end
    evaluate(config(test_folder, enabled=True, num_calibration_bins=6), store, {"real": models["real"]})
    client = mlflow.MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    (run,) = client.search_runs(["1"], f"tags.`synthclones.artifact_id` = '{made['report_id']}'")
    assert run.data.metrics["real.top1_mean"] == made["real_top1"] and run.info.status == "FINISHED"
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"config.yaml", "report.html"}


@pytest.fixture(scope="module")
def wide(store: Store, models, test_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """(manifest, lines said) of more test sets and of corruptions. ImageNet-A shares one class with the run: sandal."""
    adversarial = tmp_path_factory.mktemp("a")
    for wnid in (SANDAL, "n01440764"):
        (adversarial / wnid).mkdir()
        (adversarial / wnid / "0.png").write_bytes(png(5, 40))
    sets = {"mine": str(test_folder), "imagenet_a": str(adversarial), "imagenet_r": str(adversarial / "none")}
    corruptions = {"names": ["gaussian_noise", "fog", "saturate"], "severities": [1, 5], "num_images_per_class": 1}
    said: list[str] = []
    settings = config(test_folder, enabled=True, test_sets=sets, corruptions=corruptions)
    return evaluate(settings, store, models, said.append), said


def test_every_set_that_is_there_is_scored_and_the_others_are_named(store: Store, wide, manifest):
    made, said = wide
    sets = store.read_json(made["metrics"])["test_sets"]
    assert set(sets) == {"test_set", "mine", "imagenet_a"} and list(made["missing_test_sets"]) == ["imagenet_r"]
    assert any("imagenet_r" in line and "github.com/hendrycks/imagenet-r" in line for line in said)
    assert any("1 images of 1 classes that the model does not have, of imagenet_a" in line for line in said)
    assert sets["mine"]["groups"] == sets["test_set"]["groups"] and sets["mine"]["headline"] == "top1"
    assert (
        sets["test_set"]["groups"]["synthetic"]["top1"]["mean"] == manifest["synthetic_top1"] == made["synthetic_top1"]
    )
    sandals = sets["imagenet_a"]
    assert (sandals["classes"], sandals["images"], sandals["headline"]) == (1, 1, "top1_masked")
    assert sandals["groups"]["real"]["top1_masked"]["mean"] == 1.0  # there is only one class to choose
    assert made["report_id"] != manifest["report_id"]


def test_corruptions_are_scored_beside_the_clean_images(store: Store, wide):
    found = store.read_json(wide[0]["metrics"])["corruptions"]
    assert found["images"] == 10 and set(found["groups"]) == {"synthetic", "real"}
    real = found["groups"]["real"]
    assert set(real["table"]) == {"gaussian_noise", "fog", "saturate"} and len(real["table"]["fog"]) == 2
    expected = np.mean([real["table"][name] for name in ("gaussian_noise", "fog")])
    assert real["corrupted"]["mean"] == pytest.approx(expected)


def test_the_page_and_mlflow_tell_of_every_set(store: Store, wide):
    made, _ = wide
    page = store.read_bytes(made["report"]).decode()
    assert 'id="shift"' in page and 'id="corruptions"' in page and "Spider plot" in page
    client = mlflow.MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    metrics = client.get_run(made["mlflow_run_id"]).data.metrics
    assert metrics["imagenet_a/top1_masked.real"] == 1.0 and "mine/top5.synthetic" in metrics
    assert metrics["corruptions/relative.synthetic"] >= 0 and "corruptions/weather.real" in metrics
    assert "spider.png" in {item.path for item in client.list_artifacts(made["mlflow_run_id"])}


def test_a_new_set_or_another_noise_is_another_report(store: Store, wide, models, test_folder: Path):
    made, _ = wide
    again = RunConfig.model_validate(made["config"])
    said: list[str] = []
    assert evaluate(again, store, models, said.append) == made
    assert any("imagenet_r" in line for line in said) and not any("images/s" in line for line in said)
    identity = made["identity"]
    assert identity["corruptions"]["seed"] == 0 and "num_processes" not in identity["corruptions"]
    assert set(identity["test_sets"]) == {"mine", "imagenet_a"} and "resize" not in identity


def test_a_report_of_models_that_are_scored_already_scores_none(
    store: Store, models, test_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    corruptions = {"names": ["fog"], "severities": [2], "num_images_per_class": 1, "num_processes": 1}
    settings = config(test_folder, num_calibration_bins=7, corruptions=corruptions)
    pair = {"synthetic": models["synthetic"][1:], "real": models["real"]}
    each = [evaluate(settings, store, {group: pair[group]}) for group in pair]
    monkeypatch.setattr("pipeline.core.kept_scores.score_sets", None)
    monkeypatch.setattr("pipeline.stages.evaluate.count_corrupted", None)
    said: list[str] = []
    both = store.read_json(evaluate(settings, store, pair, said.append)["metrics"])
    assert sum("scored before" in line for line in said) == 2
    for group, one in zip(pair, each, strict=True):
        alone = store.read_json(one["metrics"])
        assert both["groups"][group] == alone["groups"][group]
        assert both["corruptions"]["groups"][group] == alone["corruptions"]["groups"][group]


def test_a_report_that_was_stopped_goes_on_with_the_models_that_are_left(
    store: Store, models, test_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    settings, scored = config(test_folder, num_calibration_bins=8), []
    two = {"synthetic": models["synthetic"]}  # the real one of these tests has the first one's weights

    def stopped(trained, *rest):
        if scored:
            raise KeyboardInterrupt
        scored.append(trained)
        return score_sets(trained, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.core.kept_scores.score_sets", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate(settings, store, two)
    said: list[str] = []
    evaluate(settings, store, two, said.append)
    assert ["scored before" in line for line in said] == [True, False]


def test_a_set_that_is_gone_leaves_the_gallery_without_it(save_model, tmp_path: Path, test_folder: Path):
    store = Store.open(str(tmp_path))
    manifest = evaluate(config(test_folder), store, {"synthetic": [save_model(store, "synthetic", 0)]})
    page = store.read_bytes(manifest["report"]).decode()
    assert "prompt of" not in page and page.count("<img") == 30 + 1 + 1


def refuse(store: Store, settings: RunConfig, models, words: str) -> None:
    before = sorted(Path(store.root).rglob("*"))
    with pytest.raises(InputError, match=words):
        evaluate(settings, store, models)
    assert sorted(Path(store.root).rglob("*")) == before


def test_wrong_models_are_refused_and_nothing_is_written(store: Store, models, save_model, test_folder: Path):
    settings = config(test_folder)
    refuse(store, settings, {}, "no model to evaluate")
    refuse(store, settings, {"synthetic": ["models/none"]}, r"jobs\.train")
    refuse(store, settings, {"real": models["synthetic"]}, "was trained on synthetic images, not on real ones")
    longer = save_model(store, "synthetic", 5, images_per_class=9)
    refuse(store, settings, {"synthetic": [models["synthetic"][0], longer]}, "evaluate them apart")
    refuse(store, settings.model_copy(update={"classes": "imagenet100"}), models, "classes that are not the 100")


def test_a_wrong_test_set_is_refused_and_nothing_is_written(store: Store, models, tmp_path: Path):
    refuse(store, config(tmp_path / "nothing"), models, "is no folder")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_no_reason_to_use_the_cpu(store: Store, models, test_folder: Path):
    refuse(store, config(test_folder, device="cuda"), models, "evaluate.device=cpu")

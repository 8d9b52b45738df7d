"""Training through Ray: what it leaves, what it finds again, and what it refuses before Ray starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.classes import load_class_table
from pipeline.core.classifier import load_classifier
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.stages.train import read_metrics, train
from pipeline.stages.worker_job import run_worker
from tests.finished_trainings import finish_training
from tests.image_sets import small_config, write_extras, write_image_set


def refuse_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_arguments: Any, **_named: Any) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr("pipeline.stages.train.ray_session", started)


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunConfig, dict[str, Any]]:
    """A model trained on a synthetic set from memory: 2 workers, 2 epochs of 5 steps, the last 16 images dropped."""
    store = Store.open(str(tmp_path_factory.mktemp("train") / "runs"))
    config = small_config(images_per_class=9, shard_size=50, checkpoint_every_epochs=1, mixed_precision="bfloat16")
    write_image_set(config, store)
    return store, config, train(config, store)


def test_model_directory_holds_weights_config_metrics_and_manifest_only(
    trained: tuple[Store, RunConfig, dict[str, Any]],
) -> None:
    store, config, summary = trained
    names = store.list_names(summary["model_dir"])
    assert names == ["config.json", "manifest.json", "metrics.jsonl", "model.safetensors"]
    file_system, path = store.filesystem(f"{summary['model_dir']}/checkpoints")
    assert file_system.get_file_info(path).type.name == "NotFound"
    loaded = load_classifier(store, summary["model_dir"])
    assert loaded.train == config.train
    assert loaded.class_names[8] == "Bag"


def test_metrics_have_one_line_per_epoch_with_the_true_counts(
    trained: tuple[Store, RunConfig, dict[str, Any]],
) -> None:
    store, _, summary = trained
    metrics = read_metrics(store, summary["model_dir"])
    assert [line["epoch"] for line in metrics] == [1, 2]
    assert [line["images"] for line in metrics] == [80, 80]  # 90 images, 5 batches of 16 over both workers
    assert summary["images_seen"] == 160
    assert summary["images_per_s"] == pytest.approx(160 / sum(line["seconds"] for line in metrics))
    assert summary["data"]["image_set"] == f"images/{summary['data']['image_set'].split('/')[1]}"
    json.dumps(summary)


def test_a_finished_model_is_found_again_without_ray(
    trained: tuple[Store, RunConfig, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, config, summary = trained
    refuse_ray(monkeypatch)
    again = train(config, store)
    assert (summary["existing"], again["existing"]) == (False, True)
    assert {k: v for k, v in again.items() if k != "existing"} == {k: v for k, v in summary.items() if k != "existing"}


def test_a_training_that_lost_its_driver_before_the_manifest_goes_on_from_the_checkpoint(
    ray_cluster: None, tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(tmp_root)
    config = small_config(data="real", images_per_class=4, num_workers=1, checkpoint_every_epochs=1)

    def dies(*_arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.stages.train.publish", dies)
        with pytest.raises(KeyboardInterrupt):
            train(config, store)
    before = store.list_names("models")
    weights = store.read_bytes(f"{only_model(store)}/model.safetensors")
    metrics = read_metrics(store, only_model(store))
    assert MANIFEST not in store.list_names(only_model(store))
    summary = train(config, store)
    assert store.list_names("models") == before
    assert store.read_bytes(f"{summary['model_dir']}/model.safetensors") == weights  # nothing was trained again
    assert read_metrics(store, summary["model_dir"]) == metrics


def only_model(store: Store) -> str:
    file_system, path = store.filesystem("models")
    from pyarrow import fs

    (directory,) = file_system.get_file_info(fs.FileSelector(path))
    return f"models/{directory.base_name}"


@pytest.mark.slow
@pytest.mark.parametrize("ingest", ["memory", "stream"])
def test_both_ingests_give_a_model_that_learns(ray_cluster: None, tmp_root: str, ingest: str) -> None:
    store = Store.open(tmp_root)
    config = small_config(
        images_per_class=60,
        shard_size=100,
        ingest=ingest,
        epochs=8,
        batch_size=32,
        learning_rate=0.4,
        mixed_precision="bfloat16",
    )
    write_image_set(config, store)
    summary = train(config, store)
    metrics = read_metrics(store, summary["model_dir"])
    assert [line["images"] for line in metrics] == [576] * 8  # 600 images, 18 batches of 32
    assert metrics[-1]["accuracy"] > 0.55
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 0.5


def test_the_loss_is_adjusted_by_the_shares_of_the_classes(ray_cluster: None, tmp_path: Path) -> None:
    """Through Ray the same weights as from the bare loop, which are others than without the adjustment."""
    extra = [0, 3, 9, *[0] * 7]
    grown = {"extra_images": dict(zip(load_class_table("fashion_mnist").wnids, extra, strict=True))}
    adjusted = small_config(images_per_class=6, engine_batch=4, num_workers=1, epochs=1, logit_adjustment=1, **grown)
    plain = adjusted.model_copy(update={"train": adjusted.train.model_copy(update={"logit_adjustment": 0.0})})
    bare, store = Store.open(str(tmp_path / "bare")), Store.open(str(tmp_path / "runs"))
    for each in (bare, store):
        write_image_set(adjusted, each)
        write_extras(adjusted, each, extra)
    expected = [read_metrics(bare, finish_training(config, bare))[-1]["loss"] for config in (adjusted, plain)]
    found = read_metrics(store, train(adjusted, store)["model_dir"])[-1]["loss"]
    assert found == pytest.approx(expected[0], rel=1e-3) and abs(found - expected[1]) > 0.01


def test_a_mixed_training_publishes_a_plain_model_of_both_sources(ray_cluster: None, tmp_root: str) -> None:
    store = Store.open(tmp_root)
    config = small_config(
        images_per_class=4, data="mixed", real_share=0.25, separate_batch_norm=True, num_workers=1, epochs=1
    )
    recipe = write_image_set(config, store)
    summary = train(config, store)
    (metrics,) = read_metrics(store, summary["model_dir"])
    assert metrics["images"] == 48  # 3 steps of 12 of the 40 synthetic images and 4 real ones
    assert summary["identity"]["data"] == {"image_set": recipe.hash, "real": "fashion_mnist"}
    assert load_classifier(store, summary["model_dir"]).train.data == "mixed"


def test_a_mixed_training_streams_shards_and_a_folder_to_two_workers(
    ray_cluster: None, noise_folder: Path, tmp_root: str
) -> None:
    """Three epochs take 72 real images, more than two passes over the 30 there are."""
    store = Store.open(tmp_root)
    mixed = {"data": "mixed", "real_share": 0.5, "real_data": str(noise_folder), "ingest": "stream"}
    config = small_config(images_per_class=3, epochs=3, num_workers=2, **mixed)
    recipe = write_image_set(config, store)
    summary = train(config, store)
    metrics = read_metrics(store, summary["model_dir"])
    assert [line["images"] for line in metrics] == [48] * 3  # 3 steps of 8 of the 30 synthetic images and 8 real ones
    assert summary["data"]["image_set"] == recipe.images_dir and summary["data"]["real_images"] == 30


def test_a_loss_that_is_no_number_is_one_work_error_without_restarts(ray_cluster: None, tmp_root: str) -> None:
    config = small_config(
        data="real", images_per_class=4, num_workers=1, learning_rate=1e30, head="linear", warmup_epochs=0
    )
    with pytest.raises(WorkError, match=r"not finite at step \d+; lower train\.learning_rate"):
        train(config, Store.open(tmp_root))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (small_config(), r"run `python -m jobs\.generate`"),
        (small_config(data="real", images_per_class=7000), "1 to 6000"),
        (small_config(data="real", images_per_class=1), "larger than the 10 training images"),
        (small_config(data="real", batch_size=15), "cannot be shared equally by 2 workers"),
        (small_config(data="real", images_per_class=6000, max_memory_gib=0.1), r"max_memory_gib"),
        (small_config(data="real", device="cuda"), "usable GPUs"),
        (small_config(data="real", real_data="/nowhere"), r"train\.real_data '/nowhere' is no folder"),
    ],
)
def test_wrong_input_is_found_before_ray_starts_and_leaves_nothing(
    config: RunConfig, message: str, tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_ray(monkeypatch)
    store = Store.open(tmp_root)
    with pytest.raises(InputError, match=message):
        train(config, store)
    assert store.list_names("") == []


def test_asking_for_more_images_than_the_set_holds_is_an_input_error(
    tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_ray(monkeypatch)
    store, config = Store.open(tmp_root), small_config(images_per_class=3, shard_size=30)
    write_image_set(config, store)
    with pytest.raises(InputError, match=r"lacks 1 of the 2 shards for 4 images per class.*--images-per-class 4"):
        train(config.model_copy(update={"images_per_class": 4}), store)


def test_a_class_without_usable_images_is_an_input_error(tmp_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_ray(monkeypatch)
    store, config = Store.open(tmp_root), small_config(images_per_class=3, shard_size=30)
    write_image_set(config, store, lambda _, row: {**row, "status": "nsfw"} if row["class_index"] == 8 else row)
    for ingest in ("memory", "stream"):
        changed = config.model_copy(update={"train": config.train.model_copy(update={"ingest": ingest})})
        with pytest.raises(InputError, match=r"no usable image \('Bag'\)"):
            train(changed, store)


def test_a_mixed_training_counts_both_sources_for_a_batch(tmp_root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of 16 of the 20 synthetic images and 16 of the 20 real ones."""
    refuse_ray(monkeypatch)
    store = Store.open(tmp_root)
    config = small_config(images_per_class=2, data="mixed", batch_size=32)
    write_image_set(config, store)
    with pytest.raises(AssertionError, match="Ray was started"):
        train(config, store)


def test_a_full_disk_ends_a_training_of_several_workers_with_one_line(
    ray_cluster: None, tmp_root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rank 0 alone writes, and the other worker waits for it in Ray's barrier."""
    refused = "cannot write metrics.jsonl: No space left on device; free space, then run the same command again"

    def full(_store: Store, path: str, _data: bytes, _patience_s: float | None = None) -> None:
        raise WorkError(refused)

    def on_a_full_disk(settings: dict[str, Any]) -> Any:
        Store.write_bytes = full  # type: ignore[method-assign]  # in the worker's process, which ends with the training
        return run_worker(settings)

    monkeypatch.setattr("pipeline.stages.train.run_worker", on_a_full_disk)
    config = small_config(data="real", images_per_class=4, epochs=1, max_failures=0)
    with pytest.raises(WorkError, match=rf"^training models/\w+ failed: {refused}$"):
        train(config, Store.open(tmp_root))

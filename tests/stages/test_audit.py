"""The audit of a set of coloured pictures: what is planted in it is what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.core.clip_scores import ClipScores
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import image_id
from pipeline.core.image_set import shard_path
from pipeline.core.images import encode_image, perceptual_hash, pixel_std
from pipeline.core.recipe import resolve_recipe
from pipeline.core.schema import OK
from pipeline.stages.audit import NO_CLIP, audit
from pipeline.stages.audit_clip import ClipActor
from pipeline.stages.run_handle import RunHandle
from tests.image_sets import small_config, write_image_set
from tests.tiny_clip import COLOURS, build_clip, picture

pytestmark = pytest.mark.usefixtures("ray_cluster")
EACH = 4


def planted_config(**settings) -> RunConfig:
    return small_config(EACH, 10).model_copy(
        update={"audit": small_config().audit.model_validate({"worst_classes": 3, **settings})}
    )


def plant(number: int, row: dict) -> dict:
    """Classes 0 to 2 are red, green and blue photos; of class 1 half are red drawings; class 5's images are all equal.

    One row failed and one is flagged.
    """
    label, index = row["class_index"], row["image_id"] & 0xFFFFFFFF
    if (label, index) == (7, 0):
        none = dict.fromkeys(("image", "phash", "sha256", "width", "height", "pixel_std"))
        return {**row, **none, "status": "failed", "reason": "no"}
    if label in (0, 1, 2, 5):
        colour, style = ("red", "drawing") if label == 1 and index % 2 else (COLOURS[label % 3], "photo")
        pixels = picture(colour, style)
        data = encode_image(pixels, small_config().recipe)
        row = {
            **row, "image": {"bytes": data, "path": None}, "sha256": sha256_bytes(data), "width": 16, "height": 16,
            "phash": perceptual_hash(pixels), "pixel_std": pixel_std(pixels),
        }  # fmt: skip
    return {**row, "status": "nsfw" if (label, index) == (8, 1) else OK}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store.open(str(tmp_path_factory.mktemp("audit")))
    write_image_set(planted_config(), store, plant)
    return store


def test_without_clip_it_says_what_hashes_and_statuses_say(store: Store, monkeypatch: pytest.MonkeyPatch):
    manifest = audit(planted_config(), store)
    metrics = store.read_json(manifest["metrics"])
    by_wnid = {found["wnid"]: found for found in metrics["classes"]}
    classes = [by_wnid[wnid] for wnid in resolve_recipe(planted_config()).classes.wnids]
    assert classes[5]["near_duplicates"] == 1 and classes[5]["hash_distance"] == 0
    assert classes[7]["failed"] == 0.25 and classes[7]["compared"] == 3 and classes[8]["nsfw"] == 0.25
    assert manifest["totals"]["counts"] == {"ok": 38, "failed": 1, "nsfw": 1, "blank": 0}
    assert manifest["missing"] == [NO_CLIP] and "agreement" not in classes[0]
    assert metrics["classes"][0]["badness"] >= metrics["classes"][-1]["badness"]
    page = store.read_bytes(manifest["page"]).decode()
    assert page.count("<figure") == 3 * EACH and "audit.clip.id=FOLDER" in page and "CLIP agrees" not in page
    told: dict[str, object] = {}
    monkeypatch.setattr(RunHandle, "log_metrics", lambda _self, metrics, step: told.update(metrics))
    monkeypatch.setattr(RunHandle, "log_artifact", lambda _self, name, content: told.update({name: content}))
    assert audit(planted_config(), store) == manifest  # not made again
    assert told["counts.ok"] == 38 and told["audit.html"] == page.encode()  # what a lost server missed is told again


def test_a_planted_clip_finds_what_was_planted(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = {0: "red", 1: "green", 2: "blue"}
    clip = build_clip(tmp_path / "clip", planted=True)
    config = planted_config(clip={"id": str(clip)}, clip_images_per_class=EACH, batch_size=3, worst_classes=10)
    recipe = resolve_recipe(config)
    for label, name in names.items():  # the same set, whose classes are called by their colours
        recipe.classes.rows[label]["class_name"] = name
    monkeypatch.setattr("pipeline.stages.audit.resolve_recipe", lambda _config: recipe)
    manifest = audit(config, store)
    by_name = {found["name"]: found for found in store.read_json(manifest["metrics"])["classes"]}
    found = [by_name[name] for name in names.values()]
    assert [colour["agreement"] for colour in found] == [1, 0.5, 1]
    assert [colour["non_natural"] for colour in found] == [0, 0.5, 0]
    assert found[1]["domains"]["drawing"] == 0.5 and by_name[recipe.classes.names[7]]["clip_images"] == EACH - 1
    assert found[0]["clip_distance"] == pytest.approx(0, abs=1e-5) and found[1]["clip_distance"] > 0.1
    page = store.read_bytes(manifest["page"]).decode()
    assert "CLIP agrees" in page and NO_CLIP not in page and manifest["missing"] == []
    assert page.count("CLIP: drawing, not photo") >= 2 and "CLIP: rather red (" in page
    assert manifest["identity"]["clip"]["sha256"]
    scores = ClipScores(store, manifest["audit_id"])
    assert np.isfinite(scores.of(np.array([image_id(7, EACH - 1)]))).all()


def test_an_actor_that_cannot_load_its_clip_says_so_in_a_row(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pipeline.stages.audit_clip.voice", lambda _: lambda *_, **__: None)  # there is no Ray here
    clip = build_clip(tmp_path / "clip", planted=False)
    (clip / "preprocessor_config.json").unlink()
    actor = ClipActor(planted_config(clip={"id": str(clip)}).audit, store, ["a"], EACH, None)
    (row,) = actor({"shard": "none"})
    assert "audit.clip: " in row["error"] and "cannot be loaded" in row["error"] and row["is_input"]


def test_a_hub_that_cannot_be_reached_is_said_in_a_row_and_is_no_mistake_of_the_user(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    def unreachable(*_: object) -> Path:
        raise WorkError("the weights of 'a/b' cannot be fetched")

    monkeypatch.setattr("pipeline.stages.audit_clip.voice", lambda _: lambda *_, **__: None)
    monkeypatch.setattr("pipeline.stages.audit_clip.local_model_dir", unreachable)
    actor = ClipActor(planted_config(clip={"id": "a/b", "revision": "0" * 40}).audit, store, ["a"], EACH, None)
    assert actor({"shard": "none"}) == [{"error": "the weights of 'a/b' cannot be fetched", "is_input": False}]


def test_real_images_of_another_size_are_another_audit(store: Store, noise_folder: Path):
    def made(stored_size: int, folder: str | None) -> str:
        config = planted_config()
        train = {"real_data": folder, "stored_size": stored_size, "min_real_per_class": 3}
        config = config.model_copy(update={"train": config.train.model_copy(update=train)})
        found: str = audit(config, store, twin=True)["audit_id"]
        return found

    assert len({made(40, str(noise_folder)), made(48, str(noise_folder)), made(40, None)}) == 3
    assert made(40, None) == made(48, None)  # Fashion-MNIST's images are taken as they are


def test_a_damaged_picture_of_the_page_costs_no_work_of_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def spoil(_number: int, row: dict) -> dict:  # CLIP passes a blank one over
        return {**row, "status": "blank", "image": None} if row["image_id"] == image_id(4, 2) else row

    other, config = Store.open(str(tmp_path)), planted_config(worst_classes=10)
    write_image_set(config, other, spoil)
    damage = rf"shard-000002\.parquet is damaged \(image {image_id(4, 2)} cannot be decoded"
    with pytest.raises(WorkError, match=damage):
        audit(config, other)
    monkeypatch.setattr("pipeline.stages.audit.clip_fingerprint", lambda _: {"sha256": "of a model"})
    monkeypatch.setattr("pipeline.stages.audit.clip_rows", lambda *_: pytest.fail("CLIP ran first"))
    with pytest.raises(WorkError, match=damage):
        audit(config, other)
    assert not (tmp_path / "audits").exists()


@pytest.mark.slow
def test_a_clip_that_cannot_be_loaded_is_one_error_and_no_audit(store: Store, tmp_path: Path):
    clip = build_clip(tmp_path / "clip", planted=False)
    (clip / "preprocessor_config.json").unlink()
    before = sorted(Path(store.root).rglob("*"))
    with pytest.raises(InputError, match=r"audit\.clip: .* cannot be loaded"):
        audit(planted_config(clip={"id": str(clip)}), store)
    assert sorted(Path(store.root).rglob("*")) == before


def test_a_set_that_is_too_small_damaged_or_old_is_named(store: Store, tmp_path: Path):
    with pytest.raises(InputError, match=r"jobs\.generate --images-per-class 99"):
        audit(planted_config().model_copy(update={"images_per_class": 99}), store)
    other = Store.open(str(tmp_path))
    with pytest.raises(InputError, match=r"jobs\.generate"):
        audit(planted_config(), other)
    recipe = write_image_set(planted_config(), other, plant)
    identity = other.read_json(f"{recipe.images_dir}/identity.json")
    other.write_json(f"{recipe.images_dir}/identity.json", {**identity, "row_format": 1})
    with pytest.raises(InputError, match="row format 1"):
        audit(planted_config(), other)
    other.write_json(f"{recipe.images_dir}/identity.json", identity)
    other.write_bytes(shard_path(recipe.images_dir, 1), b"no parquet")
    with pytest.raises(WorkError, match=r"shard-000001\.parquet is damaged"):
        audit(planted_config(), other)

"""Which images a training reads, from memory or as a stream, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.core.artifact import Store
from pipeline.core.audit import ClipRows
from pipeline.core.clip_scores import FILE, clip_scores_bytes
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.recipe import Recipe
from pipeline.core.train_config import FilterConfig, TrainConfig
from pipeline.stages.audit import audit
from pipeline.stages.image_streams import StreamBatches
from pipeline.stages.ingest import open_training_data
from tests.image_sets import pixel_rows, small_config, write_extras, write_image_set


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunConfig, Recipe]:
    store = Store.open(str(tmp_path_factory.mktemp("ingest") / "runs"))
    config = small_config(images_per_class=9, shard_size=20, ingest="stream")
    return store, config, write_image_set(config, store)  # 90 rows wanted, 100 made


def scored(config: RunConfig, store: Store) -> str:
    """The id of an audit of a config's set, with scores as if its CLIP liked the first four images of each class."""
    audit_id = str(audit(config, store)["audit_id"])
    each = config.images_per_class
    labels, indices = np.repeat(np.arange(10), each), np.tile(np.arange(each), 10)
    nothing, scores = np.zeros(len(labels), np.int64), (indices < 4).astype(np.float32)
    rows = ClipRows(labels, indices, nothing, scores, scores, nothing, np.zeros((10, 2)))
    store.write_bytes(f"audits/{audit_id}/{FILE}", clip_scores_bytes(rows))
    return audit_id


@pytest.mark.parametrize(("images_per_class", "stay"), [(9, 4), (3, 3)])
def test_scores_of_an_audit_of_this_set_or_of_more_of_it_choose_the_images(
    image_set: tuple[Store, RunConfig, Recipe], images_per_class: int, stay: int
) -> None:
    store, config, recipe = image_set
    chosen = filtered(config.model_copy(update={"images_per_class": images_per_class}), scored(config, store))
    assert open_training_data(chosen, recipe, store).class_counts.tolist() == [stay] * 10


def test_an_audit_of_another_recipe_chooses_no_images(image_set: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, _ = image_set
    guided = config.model_copy(update={"recipe": config.recipe.model_copy(update={"guidance_scale": 7.5})})
    other = write_image_set(guided, store, lambda number, row: {**row, "sha256": f"{number:064x}"})
    with pytest.raises(InputError, match=r"clip_audit .* is of other images than .*; run `python -m jobs.audit"):
        open_training_data(filtered(guided, scored(config, store)), other, store)


def filtered(config: RunConfig, audit_id: str) -> RunConfig:
    """The same run on what an audit scored well."""
    filters = FilterConfig(min_clip_score=0.5, clip_audit=audit_id)
    return config.model_copy(update={"train": config.train.model_copy(update={"filters": filters})})


EXTRA = [0, 3, 9, *[0] * 7]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, RunConfig, Recipe]:
    """A set with extra shards of 4, and a training on 6 of each class with 3 and 9 more of two."""
    store = Store.open(str(tmp_path_factory.mktemp("grown") / "runs"))
    config = small_config(images_per_class=6, shard_size=20, engine_batch=4, ingest="stream")
    recipe = write_image_set(config, store)
    write_extras(config, store, EXTRA)
    wanted = dict(zip(recipe.classes.wnids, EXTRA, strict=True))
    train = TrainConfig.model_validate({**config.train.model_dump(mode="json"), "extra_images": wanted})
    return store, config.model_copy(update={"train": train}), recipe


def test_extra_images_are_read_beside_the_prefix_from_memory_and_as_a_stream(
    ray_cluster: None, grown: tuple[Store, RunConfig, Recipe]
) -> None:
    store, config, recipe = grown
    data = open_training_data(config, recipe, store)
    in_memory = config.model_copy(update={"train": config.train.model_copy(update={"ingest": "memory"})})
    held = open_training_data(in_memory, recipe, store)
    assert held.arrays is not None and data.num_images == held.num_images == 72 and data.source == held.source
    assert np.bincount(held.arrays[1]).tolist() == [6 + more for more in EXTRA]
    batches = StreamBatches(data.stream(store, config).iterator(), 6, share=12, shard_size=20, seed=0)
    streamed = [row for images, labels in batches.epoch(0) for row in pixel_rows(images.numpy(), labels.numpy())]
    assert sorted(streamed) == sorted(pixel_rows(*held.arrays))


def test_the_source_names_the_extra_images_and_leaves_the_uniform_part_its_name(
    grown: tuple[Store, RunConfig, Recipe],
) -> None:
    store, config, recipe = grown
    source = open_training_data(config, recipe, store).source
    plain = config.model_copy(update={"train": config.train.model_copy(update={"extra_images": ()})})
    without = open_training_data(plain, recipe, store)
    assert without.num_images == 60 and {**without.source, "extra": source["extra"]} == source
    assert (source["extra"]["images"], source["extra"]["shards"], len(source["extra"]["sha256"])) == (12, 4, 64)


@pytest.mark.parametrize("ingest", ["memory", "stream"])
def test_the_classes_shares_are_those_of_the_images_that_are_trained_on(
    grown: tuple[Store, RunConfig, Recipe], ingest: str
) -> None:
    store, config, recipe = grown
    data = open_training_data(of_both(config, ingest=ingest), recipe, store)
    of_set = (6 + np.array(EXTRA)) / 72
    settings = config.train.model_copy(update={"real_share": 0.25})
    assert data.class_shares(settings) == pytest.approx(0.25 * 0.1 + 0.75 * of_set)
    assert open_training_data(config, recipe, store).class_shares(settings) == pytest.approx(of_set)


def test_classes_far_from_equally_frequent_are_told_once_with_the_mend(
    grown: tuple[Store, RunConfig, Recipe], caplog: pytest.LogCaptureFixture
) -> None:
    store, config, recipe = grown
    with caplog.at_level("INFO", logger="pipeline.stages.ingest"):
        open_training_data(config, recipe, store)
        adjusted = config.model_copy(update={"train": config.train.model_copy(update={"logit_adjustment": 1.0})})
        open_training_data(adjusted, recipe, store)
    (line,) = [line for line in caplog.messages if "most frequent" in line]
    assert line == (
        "train: the most frequent class has 2.5 times the images of the rarest, and will be predicted more often; "
        "--set train.logit_adjustment=1 takes that out"
    )


def test_extra_images_that_are_not_made_are_an_input_error(grown: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, recipe = grown
    more = ((recipe.classes.wnids[2], 13),)
    larger = config.model_copy(update={"train": config.train.model_copy(update={"extra_images": more})})
    with pytest.raises(InputError, match="lacks 1 of the 4 shards for train.extra_images .*--per-class"):
        open_training_data(larger, recipe, store)


def test_manifest_source_names_the_set_and_its_content(image_set: tuple[Store, RunConfig, Recipe]) -> None:
    store, config, recipe = image_set
    source = open_training_data(config, recipe, store).source
    assert source["image_set"] == recipe.images_dir
    assert source["shards"] == 5
    assert len(source["set_sha256"]) == 64


def of_both(config: RunConfig, **settings: object) -> RunConfig:
    """The same run with `train.data=mixed`."""
    train = {**config.train.model_dump(mode="json"), "data": "mixed", "real_share": 0.25, **settings}
    return config.model_copy(update={"train": TrainConfig.model_validate(train)})


@pytest.mark.parametrize("ingest", ["memory", "stream"])
def test_mixed_data_are_both_sets_and_the_source_names_both(
    image_set: tuple[Store, RunConfig, Recipe], ingest: str
) -> None:
    store, config, recipe = image_set
    data = open_training_data(of_both(config, ingest=ingest), recipe, store)
    assert (data.arrays is None) == (ingest == "stream")
    assert data.real is not None and data.real.arrays is not None  # Fashion-MNIST's are never streamed
    assert (data.num_images, len(data.real.arrays[1])) == (90, 90)
    assert data.source["real"] == "fashion_mnist" and data.source["image_set"] == recipe.images_dir


def test_a_folder_beside_a_stream_is_streamed_too(
    image_set: tuple[Store, RunConfig, Recipe], noise_folder: Path
) -> None:
    store, config, recipe = image_set
    data = open_training_data(of_both(config, real_data=str(noise_folder), min_real_per_class=3), recipe, store)
    assert data.arrays is None and data.real is not None and data.real.arrays is None
    assert (data.num_images, data.real.num_images, data.source["real_images"]) == (90, 30, 30)


@pytest.mark.parametrize("folder", [False, True])
def test_both_parts_of_mixed_data_share_one_limit_of_memory_before_either_is_decoded(
    image_set: tuple[Store, RunConfig, Recipe], noise_folder: Path, folder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_time_to_decode(*_: object) -> None:
        raise AssertionError("decoded")

    store, config, recipe = image_set
    real = {"real_data": str(noise_folder), "min_real_per_class": 3} if folder else {}
    images = 90 + (30 if folder else 90)
    limit = images * 32 * 32 * 3 / 2**30
    assert open_training_data(of_both(config, ingest="memory", max_memory_gib=limit, **real), recipe, store).real
    for name in ("synthetic_images", "real_images", "folder_images"):
        monkeypatch.setattr(f"pipeline.stages.ingest.{name}", no_time_to_decode)
    less = of_both(config, ingest="memory", max_memory_gib=limit * 0.99, **real)
    with pytest.raises(InputError, match=f"^90 and {images - 90} decoded images take .*train.ingest=stream"):
        open_training_data(less, recipe, store)


@pytest.mark.parametrize("ingest", ["memory", "stream"])
def test_mixed_images_of_two_sizes_are_refused(image_set: tuple[Store, RunConfig, Recipe], ingest: str) -> None:
    store, config, recipe = image_set
    mixed = of_both(config, ingest=ingest, input_size=16)
    with pytest.raises(InputError, match=r"images of one size.*\(18, 18\).*\(32, 32\)"):
        open_training_data(mixed, recipe, store)

"""Which images a preview shows, what it says of the whole set, and what stands on the page."""

from __future__ import annotations

import pytest

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError
from pipeline.core.identity import split_image_id
from pipeline.core.preview import MAX_IMAGES, chosen_labels, chosen_rows, hours_needed, preview_picture
from pipeline.core.prompt_table import PromptRows
from pipeline.core.recipe import Recipe, resolve_recipe
from tests.core.test_gallery import image_row
from tests.image_sets import NO_MODEL

HUB = [f"recipe.model.{name}={value}" for name, value in NO_MODEL.items()]


def setup(*words: str) -> tuple[RunConfig, Recipe]:
    config = load_config("fashion", overrides=[*HUB, *words])
    return config, resolve_recipe(config)


@pytest.mark.parametrize(
    ("classes", "wanted", "labels"),
    [
        ("fashion_mnist", None, list(range(10))),
        ("fashion_mnist", 4, [0, 2, 5, 7]),
        ("fashion_mnist", 1, [0]),
        ("imagenet100", None, list(range(0, 100, 5))),
    ],
)
def test_classes_are_spread_over_the_table(classes: str, wanted: int | None, labels: list[int]) -> None:
    assert chosen_labels(*setup(f"classes={classes}"), wanted, None) == (labels, 4)


def test_a_small_set_shows_no_more_than_it_holds() -> None:
    assert chosen_labels(*setup("images_per_class=2"), None, None)[1] == 2


@pytest.mark.parametrize(
    ("classes", "each", "says"),
    [
        (11, None, "has 10; give 1 to 10"),
        (0, None, "--num-classes 0"),
        (None, 0, "--num-images-per-class 0"),
        (None, 201, "give 1 to 200"),
        (10, 1 + MAX_IMAGES // 10, "too many for one page"),
    ],
)
def test_numbers_that_cannot_be_are_input_errors(classes: int | None, each: int | None, says: str) -> None:
    config, recipe = setup()
    with pytest.raises(InputError, match=says):
        chosen_labels(config, recipe, classes, each)


def test_the_rows_are_those_of_the_prompt_table() -> None:
    _, recipe = setup("recipe.template=c, h_c inside b")
    rows = chosen_rows(recipe, [3, 7], 2)
    assert [split_image_id(row["image_id"]) for row in rows] == [(3, 0), (3, 1), (7, 0), (7, 1)]
    table = {row["image_id"]: row for row in PromptRows(recipe).table(0, 20).to_pylist()}
    assert rows == [table[row["image_id"]] for row in rows]


@pytest.mark.parametrize(
    ("words", "batches", "actors"),
    [
        ((), 20, 2),  # 20 shards of 2 batches, 10 on each actor
        (("generate.shard_size=90",), 24, 2),  # 23 shards of 2 batches: one actor makes 12
        (("generate.max_actors=64",), 2, 20),  # no more actors than shards
    ],
)
def test_hours_count_whole_batches_on_the_largest_pool(words: tuple[str, ...], batches: int, actors: int) -> None:
    assert hours_needed(setup(*words)[0], 10, 7.2) == (pytest.approx(batches * 7.2 / 3600), actors)


def row_of(status: str, **values: object) -> dict[str, object]:
    return {**image_row(1, 2, "ok"), "status": status, "reason": None, "truncated": False, "token_count": 9, **values}


@pytest.mark.parametrize("status", ["ok", "blank"])
def test_an_image_has_its_prompt_seed_and_status_under_it(status: str) -> None:
    picture = preview_picture(row_of(status))
    assert picture.source.startswith("data:image/png") and picture.frame == ""
    assert list(picture.caption) == ["prompt 1 2", "seed 1002", status, f"image {1 << 32 | 2}"]


@pytest.mark.parametrize(("status", "image"), [("failed", None), ("nsfw", image_row(0, 0)["image"])])
def test_an_image_that_is_not_to_be_seen_is_a_frame_with_its_reason(status: str, image: object) -> None:
    picture = preview_picture(row_of(status, reason="no such colour", image=image))
    assert picture.source == "" and picture.frame == f"{status}: no such colour"


def test_a_prompt_that_clip_cuts_is_said() -> None:
    assert (
        "prompt cut: 90 tokens, CLIP reads 77" in preview_picture(row_of("ok", truncated=True, token_count=90)).caption
    )

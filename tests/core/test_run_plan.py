"""Plans against numbers worked out by hand, and against shards that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import PRESETS, load_config
from pipeline.core.errors import InputError
from pipeline.core.image_set import ShardSummary
from pipeline.core.recipe import resolve_recipe
from pipeline.core.run_plan import (
    ClusterTable,
    cut_prompts,
    load_clusters,
    on_gpus,
    plan_run,
    relative_work,
    training_gpu_hours,
    what_happened,
)

TABLE = {
    "reference": {"model": "org/sd", "width": 512, "height": 512, "num_inference_steps": 50, "guidance": True},
    "clusters": {
        "eight": {
            "gpus": 8,
            "usd_per_gpu_hour": {"on_demand": 3.6, "spot": 1.8},
            "images_per_s": 2.0,
            "speed_source": "a test",
        }
    },
    "bytes_per_pixel": {"jpeg": 0.5},
    "usd_per_gb_month": 0.02,
}


@pytest.fixture
def table() -> ClusterTable:
    return ClusterTable.model_validate(TABLE)


def config(*words: str) -> RunConfig:
    hub = ["recipe.model.id=org/sd", f"recipe.model.revision={'a' * 40}"]
    return load_config("imagenet100_sd", overrides=[*hub, "images_per_class=1280", "generate.shard_size=256", *words])


def test_the_numbers_are_those_of_a_calculation_by_hand(table: ClusterTable) -> None:
    plan = plan_run(config("generate.num_actors=8"), resolve_recipe(config()), table, "eight")
    assert (plan["images"], plan["shards"], plan["classes"]) == (128_000, 500, 100)
    assert plan["gpu_hours"] == pytest.approx(128_000 / 2 / 3600) and plan["wall_hours"] == plan["gpu_hours"] / 8
    assert plan["usd"] == pytest.approx(64) and plan["usd_per_million_images"] == pytest.approx(500)
    assert plan["stored_gb"] == pytest.approx(128_000 * 512 * 512 * 0.5 / 1e9)
    assert plan["speed_source"] == "a test"
    spot = plan_run(config(), resolve_recipe(config()), table, "eight", "spot")
    assert spot["usd"] == pytest.approx(32)


@pytest.mark.parametrize(
    ("words", "busy", "says"),
    [
        ([], 1, "1 of 8 GPUs (--set generate.num_actors=8 takes more)"),
        (["generate.num_actors=9"], 8, "8 GPUs"),
        (["generate.max_actors=4"], 4, "4 of 8 GPUs (--set generate.max_actors=8 takes more)"),
        (["generate.num_actors=6", "generate.num_gpus_per_actor=0.5"], 3, "num_actors=16 takes more"),
        (["generate.num_actors=8", "images_per_class=5"], 2, "2 of 8 GPUs (it has no more shards)"),
    ],
)
def test_hours_by_the_clock_are_of_the_gpus_that_the_actors_take(
    words: list[str], busy: int, says: str, table: ClusterTable
) -> None:
    plan = plan_run(config(*words), resolve_recipe(config(*words)), table, "eight")
    assert plan["wall_hours"] == plan["gpu_hours"] / busy and says in on_gpus(plan)
    if advised := re.search(r"--set (\S+)", on_gpus(plan)):
        config(*words, advised[1])  # raises when the advice is refused


@pytest.mark.parametrize(
    ("words", "work"),
    [
        ([], 1.0),
        (["recipe.num_inference_steps=25"], 0.5),
        (["recipe.guidance_scale=1"], 0.5),
        (["recipe.width=256", "recipe.height=256"], 0.25),
    ],
)
def test_work_grows_with_pixels_steps_and_guidance(words: list[str], work: float, table: ClusterTable) -> None:
    assert relative_work(config(*words).recipe, table.reference) == pytest.approx(work)


def test_training_costs_in_proportion_to_the_pixels_of_the_crops() -> None:
    cluster = load_clusters().clusters["a100x8"]
    plain = config("train.epochs=10")
    hours = 128_000 * 10 / 2078 / 3600
    assert training_gpu_hours(plain, 128_000, cluster) == pytest.approx(hours)
    crops = config("train.epochs=10", "train.augmentation=dino_multicrop")
    assert training_gpu_hours(crops, 128_000, cluster) == pytest.approx(hours * (224**2 + 8 * 96**2) / 224**2)
    assert training_gpu_hours(plain, 128_000, load_clusters().clusters["local"]) is None


def test_a_given_speed_wins_and_a_measured_one_comes_next(table: ClusterTable) -> None:
    recipe = resolve_recipe(config())
    actual = {"images_per_s_per_gpu": 5.0, "shards": 3}
    given = plan_run(config(), recipe, table, "eight", images_per_s=7.0, actual=actual)
    measured = plan_run(config(), recipe, table, "eight", actual=actual)
    assert (given["images_per_s_per_gpu"], measured["images_per_s_per_gpu"]) == (7.0, 5.0)
    assert "3 shards" in measured["speed_source"]


def test_a_model_that_nobody_measured_is_not_guessed(table: ClusterTable) -> None:
    other = config("recipe.model.id=org/other")
    with pytest.raises(InputError, match=r"'org/other'.*--images-per-class 1.*--images-per-s"):
        plan_run(other, resolve_recipe(other), table, "eight")


def test_prompts_that_are_cut_are_counted() -> None:
    long = config("recipe.template={{ (c ~ ' ') * 90 }}", "images_per_class=3", "generate.shard_size=100")
    assert cut_prompts(resolve_recipe(long), 300) == {
        "prompts_cut": 300,
        "prompts_counted": 300,
        "negative_prompt_tokens": 0,
    }


def test_the_tokens_of_the_negative_prompt_are_counted() -> None:
    negative = config(f"recipe.negative_prompt={'very ' * 80}")
    assert cut_prompts(resolve_recipe(negative), 100)["negative_prompt_tokens"] == 82


def test_what_happened_adds_up_the_shards(table: ClusterTable) -> None:
    shards = [ShardSummary(k, 256 * k, 256, {"ok": 256}, {}, "", 100.0, 164.0) for k in range(2)]
    actual = what_happened(config("generate.num_gpus_per_actor=0.5"), table, "eight", "on_demand", shards)
    assert actual["images"] == 512 and actual["gpu_hours"] == pytest.approx(128 * 0.5 / 3600)
    assert actual["images_per_s_per_gpu"] == pytest.approx(8.0)
    assert actual["usd"] == pytest.approx(128 * 0.5 / 3600 * 3.6)
    assert actual["stored_gb"] is None and actual["prompts_cut"] is None  # shards of before these were recorded


def test_what_happened_counts_the_engine_and_not_the_wait_for_it(table: ClusterTable) -> None:
    """Two shards in flight for 64 s each, with one engine that gave each of them 32 s."""
    told = {"engine_s": 32.0, "stored_bytes": 5 * 10**8, "truncated": 3}
    shards = [ShardSummary(k, 256 * k, 256, {"ok": 256}, {}, "", 100.0, 164.0, **told) for k in range(2)]
    actual = what_happened(config(), table, "eight", "on_demand", iter(shards))
    assert actual["gpu_hours"] == pytest.approx(64 / 3600)
    assert (actual["stored_gb"], actual["prompts_cut"]) == (1.0, 6)


def test_the_table_that_ships_is_valid_and_says_where_its_speeds_come_from() -> None:
    assert {cluster.speed_source != "" for cluster in load_clusters().clusters.values()} == {True}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clusters": {}}, "clusters"),
        ({"reference": {}}, "reference"),
        ({"prices": 1}, "prices"),
        ({"clusters": {"mine": {"gpu": 8}}}, "unknown key 'clusters.mine.gpu'; did you mean 'gpus'"),
        ({"bytes_per_pixel": {"jpeg": -0.5}}, "bytes_per_pixel.jpeg: Input should be greater than 0"),
    ],
)
def test_a_wrong_table_is_an_input_error(change: dict[str, object], says: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({**TABLE, **change}))
    with pytest.raises(InputError, match=says):
        load_clusters(tmp_path / "c.yaml")


def test_unknown_names_come_with_the_nearest(table: ClusterTable) -> None:
    with pytest.raises(InputError, match="did you mean 'eight'"):
        plan_run(config(), resolve_recipe(config()), table, "eigth")
    png = config("recipe.image_format=png")
    with pytest.raises(InputError, match="bytes_per_pixel for 'png'"):
        plan_run(png, resolve_recipe(png), table, "eight")
    assert (PRESETS / "clusters.yaml").exists()

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config
from pipeline.core.recipe import resolve_recipe
from pipeline.core.run_plan import load_clusters, plan_run
from pipeline.core.study_config import StudyConfig, load_study
from pipeline.core.study_costs import costs_markdown, study_costs, total_costs
from pipeline.core.study_plan import plan_study
from tests.conftest import REPOSITORY


def priced(config: RunConfig) -> Mapping[str, Any]:
    """A hundred images cost one of everything."""
    cost = config.images_per_class / 100
    return {
        "images": config.images_per_class * 10, "trained_on": config.images_per_class * 10 + config.train.num_extra,
        "stored_gb": cost, "gpu_hours": cost, "usd": cost,
        "wall_hours": cost / 2, "gpus": 8, "gpus_at_work": 2, "actors": 2, "useful_actors": 8,
        "pool_setting": "generate.num_actors",
        "images_per_s_per_gpu": 2.0, "speed_source": "guessed",
        "train_gpu_hours": 3 * cost, "train_speed_source": "guessed too",
    }  # fmt: skip


def test_a_row_has_its_own_price_and_shared_sets_are_paid_once() -> None:
    study = StudyConfig(axes={"images": {"1x": ["images_per_class=100"], "4x": ["images_per_class=400"]}})
    plan = plan_study(study, load_config("fashion"))
    assert [(row["setting"], row["usd"]) for row in study_costs(plan, priced)] == [("1x", 1.0), ("4x", 4.0)]
    total = total_costs(plan, priced)
    assert total["usd"] == 4.0 and total["wall_hours"] == 2.0 and total["speeds"] == ["2 images/s per GPU (guessed)"]
    assert total["train_gpu_hours"] == 3 * (3.0 + 12.0)  # every setting is trained, with each of three seeds


def test_samples_are_images_times_epochs_times_seeds() -> None:
    study = StudyConfig(seeds=[0, 1], axes={"a": {"x": ["images_per_class=100", "train.epochs=7"]}})
    (row,) = study_costs(plan_study(study, load_config("fashion")), priced)
    assert (row["samples"], row["train_gpu_hours"]) == (1000 * 7 * 2, 3 * 2)


def test_the_hours_by_the_clock_are_those_of_the_actors_that_are_set() -> None:
    plan = plan_study(StudyConfig(axes={"a": {"x": ["images_per_class=400"]}}), load_config("fashion"))
    text = costs_markdown(study_costs(plan, priced), total_costs(plan, priced))
    assert "on 2 of 8 GPUs (--set generate.num_actors=8 takes more): 2 hours by the clock" in text


def test_real_trainings_alone_make_no_images_and_no_line_about_gpus() -> None:
    study = StudyConfig(twins=False, axes={"photos": {"1x": ["train.data=real"]}})
    plan = plan_study(study, load_config("fashion"))
    total = total_costs(plan, priced)
    assert (total["images"], total["usd"], total["gpus"], total["speeds"]) == (0, 0, None, [])
    assert costs_markdown(study_costs(plan, priced), total).strip() == (
        "All image sets together, shared ones once: 0 images, 0 GB, 0 GPU hours, $0."
    )


def test_a_label_cannot_break_the_table() -> None:
    study = StudyConfig(axes={"a": {"x|y\nz": []}})
    plan = plan_study(study, load_config("fashion"))
    assert "| x\\|y z |" in costs_markdown(study_costs(plan, priced), total_costs(plan, priced))


@pytest.mark.parametrize("name", ["imagenet100", "imagenet1k"])
def test_the_tables_of_the_documentation_are_those_of_the_command(name: str) -> None:
    """`jobs.study --dry-run --cluster h100x8 --set generate.num_actors=8`."""
    plan = plan_study(load_study(f"paper_{name}"), load_config(f"{name}_sd", overrides=["generate.num_actors=8"]))
    clusters = load_clusters()

    def planned(config: RunConfig) -> dict[str, Any]:
        return plan_run(config, resolve_recipe(config), clusters, "h100x8")

    document = (REPOSITORY / "docs" / "paper.md").read_text(encoding="utf-8")
    assert costs_markdown(study_costs(plan, planned), total_costs(plan, planned)).strip() in document


def test_extra_images_count_in_training_and_the_table_says_where_not() -> None:
    extra = ["images_per_class=100", "train.extra_images=[[n03595614,300],[n04489008,700]]"]
    study = StudyConfig(twins=False, axes={"a": {"uniform": ["images_per_class=200"], "targeted": extra}})
    plan = plan_study(study, load_config("fashion"))
    rows = study_costs(plan, priced)
    assert [row["images"] for row in rows] == [2000, 2000] and rows[0]["samples"] == rows[1]["samples"]
    text = costs_markdown(rows, total_costs(plan, priced))
    assert "Extra images (train.extra_images) count as images and in training, not in GB" in text
    assert "Extra images" not in costs_markdown(rows[:1], total_costs(plan, priced))


def test_a_small_study_is_not_rounded_to_nothing() -> None:
    plan = plan_study(StudyConfig(axes={"a": {"x": ["images_per_class=1", "train.epochs=2"]}}), load_config("fashion"))
    text = costs_markdown(study_costs(plan, priced), total_costs(plan, priced))
    assert "| x | 10 | 0.01 | 0.01 | 0.01 | 0.00006 M | 0.09 |" in text

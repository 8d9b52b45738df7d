"""What a proposal is written as: the files are read back by the code that takes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.core.classes import load_class_table
from pipeline.core.config_loading import load_config
from pipeline.core.extra_counts import read_extra_images
from pipeline.core.growth import ClassLaws, GrowthFit, allocate
from pipeline.core.growth_report import (
    Proposal,
    as_trained,
    comparison_study,
    confused_pairs,
    growth_config,
    growth_csv,
    growth_facts,
    growth_markdown,
)
from pipeline.core.study_config import StudyConfig
from pipeline.core.study_plan import plan_study

CLASSES = load_class_table("fashion_mnist")
ON_A_CPU = ("train.device=cpu", "train.mixed_precision=none", "train.sync_batch_norm=false")
LAWS = ClassLaws(np.full(10, 0.02), np.linspace(0.1, 2, 10), 0.4)
OTHER = ClassLaws(LAWS.floors, LAWS.amplitudes[::-1].copy(), 0.4)
CONFUSION = np.full((10, 10), 2) + np.diag(np.full(10, 80))
CONFUSION[6, 0], CONFUSION[0, 6], CONFUSION[4, 2] = 30, 20, 10


@pytest.fixture(scope="module")
def proposal() -> Proposal:
    return Proposal(GrowthFit(LAWS, (LAWS, OTHER)), 800, 50, allocate(LAWS, 800, 8000, 50), CONFUSION)


def test_the_table_is_what_generate_reads(proposal: Proposal, tmp_path: Path) -> None:
    path = tmp_path / "growth.csv"
    path.write_text(growth_csv(growth_facts(proposal, CLASSES)))
    assert read_extra_images(str(path), CLASSES) == proposal.extra_images(CLASSES)
    assert sum(dict(proposal.extra_images(CLASSES)).values()) == 8000


def test_the_config_is_what_a_training_reads(proposal: Proposal, tmp_path: Path) -> None:
    path = tmp_path / "growth.yaml"
    base = load_config("fashion", overrides=["recipe.template=c", "train.epochs=7", "train.seed=2"])
    path.write_text(growth_config(proposal, CLASSES, as_trained(base, load_config("fashion"))))
    config = load_config("fashion", [str(path)])
    assert config.recipe == base.recipe and (config.train.epochs, config.train.seed) == (7, 0)
    assert config.images_per_class == 800 and config.train.extra_images == proposal.extra_images(CLASSES)
    assert config.train.logit_adjustment == 1


@pytest.mark.parametrize(
    "words",
    [
        ["recipe.template=c, d_c", "train=@paper_rn50", *ON_A_CPU],
        ["recipe.template=[{template: c}, {template: 'c, h_c', weight: 2}]"],
        ['recipe.template={{ c }} – a {{ h_c }}: "so"', "train.augmentation=dino_multicrop"],
    ],
)
def test_the_comparison_costs_the_same_on_both_sides(proposal: Proposal, words: list[str]) -> None:
    base = load_config("fashion", overrides=[*words, "train.epochs=7", "train.num_workers=1"])
    trained = as_trained(base, load_config("fashion"))
    study = StudyConfig.model_validate(yaml.safe_load(comparison_study(proposal, CLASSES, trained)))
    plan = plan_study(study, load_config("fashion"))
    (_, uniform), (_, targeted) = plan.axes["growth"]
    images = [10 * cell.config.images_per_class + cell.config.train.num_extra for cell in (uniform, targeted)]
    assert images == [16_000, 16_000] and len(plan.cells) == 2
    assert uniform.config.recipe == targeted.config.recipe == base.recipe
    assert (uniform.config.train.logit_adjustment, targeted.config.train.logit_adjustment) == (0, 1)
    same = {"extra_images": (), "logit_adjustment": 0.0}
    assert {cell.config.train.model_copy(update=same) for cell in plan.cells} == {base.train}


def test_the_advantage_is_what_the_laws_say_and_its_interval_may_say_less(proposal: Proposal) -> None:
    facts = growth_facts(proposal, CLASSES)
    expected = LAWS.errors(np.full(10, 1600)).mean() - LAWS.errors(800 + proposal.counts).mean()
    assert facts["advantage"] == pytest.approx(expected) and expected > 0
    assert facts["advantage_interval"][0] < 0 < facts["advantage_interval"][1]  # half of these laws are the other way
    assert json.loads(json.dumps(facts)) == facts


def test_a_class_s_range_is_that_of_the_resampled_laws_own_proposals(proposal: Proposal) -> None:
    last = growth_facts(proposal, CLASSES)["classes"][9]
    assert last["images"] == proposal.counts[9] > 0
    assert last["images_low"] < last["images"] // 10 and last["images_high"] <= last["images"]


def test_pairs_are_those_with_most_confusions_either_way() -> None:
    first, second, *_ = confused_pairs(CONFUSION, CLASSES)
    assert (first["one"], first["other"]) == (CLASSES.names[0], CLASSES.names[6])
    assert (first["one_taken_for_other"], first["other_taken_for_one"]) == (20, 30)
    assert (second["one"], second["other"]) == (CLASSES.names[2], CLASSES.names[4])
    assert first["share_of_errors"] == pytest.approx(50 / (87 * 2 + 60))


def test_a_set_without_confusions_has_no_pairs() -> None:
    diagonal = np.diag(np.full(10, 5)) + np.eye(10, k=1, dtype=int)
    assert len(confused_pairs(diagonal, CLASSES)) == 9


def test_the_text_has_a_line_for_each_class_and_the_most_wanted_first(proposal: Proposal) -> None:
    lines = [line for line in growth_markdown(growth_facts(proposal, CLASSES)).splitlines() if line.startswith("| ")]
    assert len(lines) == 11 and lines[1].startswith(f"| {CLASSES.names[9]} |")

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.config_loading import PRESETS, load_config, load_yaml
from pipeline.core.errors import InputError
from pipeline.core.study_config import StudyConfig, load_study, study_names
from pipeline.core.study_plan import plan_study
from pipeline.core.train_config import TrainConfig

BASE = load_config("fashion")


@pytest.mark.parametrize("name", study_names())
def test_every_study_that_ships_plans(name: str) -> None:
    assert plan_study(load_study(name), BASE).cells


def test_the_fashion_study_asks_for_the_issue_s_cells_once_each() -> None:
    plan = plan_study(load_study("fashion"), BASE)
    synthetic = [cell for cell in plan.cells if not cell.is_real]
    seen = {(c.config.recipe.guidance_scale, c.config.recipe.template, c.config.images_per_class) for c in synthetic}
    templates = ["c", "c, h_c", "c, d_c", "c, h_c inside b"]
    assert seen == (
        {(guidance, "c, h_c", 200) for guidance in (1, 2, 4, 7.5)}
        | {(1, template, 200) for template in templates}
        | {(1, "c, h_c", size) for size in (200, 800, 2000)}
    )
    assert len(synthetic) == 9  # 4 + 4 + 3, of which guidance 1 x "c, h_c" x 1x is shared by all three axes
    assert [c.config.images_per_class for c in plan.cells if c.is_real] == [200, 800, 2000]
    assert len(plan.trials()) == 12 * 3 and plan.seeds == (0, 1, 2)


def test_images_are_made_once_per_recipe_with_the_most_any_cell_wants() -> None:
    sets = plan_study(load_study("fashion"), BASE).image_sets()
    sizes = {(run.recipe.template, run.recipe.guidance_scale): run.images_per_class for run in sets}
    assert len(sizes) == len(sets) == 7 and sizes.pop(("c, h_c", 1)) == 2000 and set(sizes.values()) == {200}


def test_a_twin_has_the_size_and_the_length_of_its_cell() -> None:
    plan = plan_study(load_study("fashion"), BASE)
    for cell in plan.cells:
        twin = plan.twin_of(cell)
        assert twin.config.train.data == "real"
        assert twin.config.images_per_class == cell.config.images_per_class
        assert twin.config.train.epochs == cell.config.train.epochs


TRAININGS = StudyConfig(
    axes={
        "augmentation": {"plain": [], "colours": ["train.augmentation=dino_multicrop"]},
        "recipe": {"c": ["recipe.template=c"], "mixed": ["train.data=mixed", "train.real_share=0.25"]},
    }
)


def test_every_training_has_a_twin_of_its_own_and_recipes_share_one() -> None:
    plan = plan_study(TRAININGS, BASE)
    twins = [cell for cell in plan.cells if cell.is_real]
    assert [cell.name for cell in twins] == ["real=200 per class", "real=200 per class, as augmentation=colours"]
    assert [twin.config.train.augmentation for twin in twins] == ["pytorch", "dino_multicrop"]
    for cell in (cell for cell in plan.cells if not cell.is_real):
        twin = plan.twin_of(cell).config
        assert twin.recipe == BASE.recipe
        assert twin.train == cell.config.train.model_copy(update={"data": "real", "real_share": 0.5})


def test_a_twin_runs_right_after_the_first_cell_that_it_is_for() -> None:
    kinds = [(cell.config.train.augmentation, cell.is_real) for cell in plan_study(TRAININGS, BASE).cells]
    assert kinds[:4] == [("pytorch", False), ("pytorch", True), ("dino_multicrop", False), ("dino_multicrop", True)]


def test_cells_that_are_scored_otherwise_have_a_twin_that_is_scored_likewise() -> None:
    study = StudyConfig(axes={"resize": {"none": [], "36": ["evaluate.resize=36"]}})
    plan = plan_study(study, BASE)
    for cell in plan.cells:
        assert plan.twin_of(cell).config.evaluate == cell.config.evaluate


def test_seeds_change_the_seed_only() -> None:
    cell = plan_study(load_study("fashion"), BASE).cells[0]
    changed = cell.trial(2)
    assert changed.train.seed == 2 and changed.recipe == cell.config.recipe
    assert changed.train.model_copy(update={"seed": 0}) == cell.config.train


def test_only_keeps_one_axis_and_its_twins() -> None:
    plan = plan_study(load_study("fashion"), BASE, ["guidance"])
    assert set(plan.axes) == {"guidance", "real"} and len(plan.cells) == 5


def test_only_keeps_one_row_of_an_axis_and_its_twin() -> None:
    plan = plan_study(load_study("fashion"), BASE, ["guidance=7.5", "images=4x"])
    assert sorted(cell.name for cell in plan.cells if not cell.is_real) == ["guidance=7.5", "images=4x"]
    assert [cell.config.images_per_class for cell in plan.cells if cell.is_real] == [200, 800]


def test_rows_of_other_filters_share_a_twin() -> None:
    study = StudyConfig(axes={"filters": {"none": [], "flat ones": ["train.filters.min_pixel_std=5"]}})
    plan = plan_study(study, BASE)
    (twin,) = [cell for cell in plan.cells if cell.is_real]
    assert [plan.twin_of(cell) for cell in plan.cells if not cell.is_real] == [twin, twin]


def test_a_study_without_twins_has_none() -> None:
    study = StudyConfig(twins=False, axes={"epochs": {"3": ["train.epochs=3"]}})
    plan = plan_study(study, BASE)
    assert [cell.name for cell in plan.cells] == ["epochs=3"] and plan.twin_of(plan.cells[0]) is None


def test_the_paper_s_studies_have_a_twin_at_1x_once_there_are_real_images() -> None:
    for preset, name, size in (
        ("imagenet100_sd", "paper_imagenet100", 1267),
        ("imagenet1k_sd", "paper_imagenet1k", 1282),
    ):
        without = plan_study(load_study(name), load_config(preset))
        assert not any(cell.is_real for cell in without.cells)
        given = load_config(preset, overrides=["train.real_data=imagenet/train"])
        plan = plan_study(load_study(name), given)
        twins = [cell.config for cell in plan.cells if cell.is_real]
        assert all((t.train.min_real_per_class, t.train.max_real_per_class) == (732, 1300) for t in twins)
        assert {config.images_per_class for config in twins} == {size} and len(twins) == 3  # one for each augmentation
        for cell in plan.cells:
            twin = plan.twin_of(cell)
            assert twin.config.train.real_data == "imagenet/train" and twin.config.images_per_class == size
            assert twin.config.train.multi_crop == cell.config.train.multi_crop


SIZES = StudyConfig(
    twin_sizes=[20],
    lengths={20: ["train.epochs=9"], 80: ["train.epochs=3"]},
    axes={"images": {"1x": ["images_per_class=20"], "4x": ["images_per_class=80"], "a half": ["images_per_class=10"]}},
)


@pytest.mark.parametrize("only", [[], ["images=4x"]])
def test_a_row_above_the_largest_real_set_stands_beside_that_set_trained_for_its_own_length(only: list[str]) -> None:
    plan = plan_study(SIZES, BASE, only)
    (twin,) = [cell for cell in plan.cells if cell.is_real]
    (larger,) = [cell for cell in plan.cells if cell.config.images_per_class == 80]
    assert plan.twin_of(larger) == twin
    assert (twin.config.images_per_class, twin.config.train.epochs) == (20, 9)


def test_a_row_below_every_twin_has_none() -> None:
    plan = plan_study(SIZES, BASE)
    (smaller,) = [cell for cell in plan.cells if cell.config.images_per_class == 10]
    assert plan.twin_of(smaller) is None


@pytest.mark.parametrize("name", ["imagenet100", "imagenet1k"])
def test_the_paper_s_studies_train_with_the_paper_s_recipe(name: str) -> None:
    recipe = TrainConfig.model_validate(load_yaml(PRESETS / "trainings" / "paper_rn50.yaml"))
    of_the_run = {"seed", "ingest", "checkpoint_every_epochs", "min_real_per_class", "max_real_per_class"}
    plan = plan_study(load_study(f"paper_{name}"), load_config(f"{name}_sd"))
    augmentation = dict(plan.axes["augmentation"])
    assert augmentation["crops and mirror images alone"].config.train.augmentation == "pytorch"
    assert augmentation["DINO's colours, no local crops"].config.train.multi_crop.num_local == 0
    others = [cell for axis, pairs in plan.axes.items() if axis != "augmentation" for _, cell in pairs]
    for cell in [*others, augmentation["DINO's colours and multi-crop"]]:
        assert cell.config.train.model_dump(exclude=of_the_run) == recipe.model_dump(exclude=of_the_run)
        assert (cell.config.train.ingest, cell.config.train.checkpoint_every_epochs) == ("stream", 1)


def test_the_command_line_wins_over_the_base_of_a_study_and_a_cell_over_both() -> None:
    study = StudyConfig(base=["train.epochs=9", "train.momentum=0.5"], axes={"a": {"x": [], "y": ["train.epochs=3"]}})
    plan = plan_study(study, BASE, given=["train.epochs=7"])
    found = {cell.name: (cell.config.train.epochs, cell.config.train.momentum) for cell in plan.cells}
    assert found["a=x"] == (7, 0.5) and found["a=y"] == (3, 0.5)


def test_the_command_line_wins_over_the_length_of_a_size_in_a_cell_and_its_twin() -> None:
    study = StudyConfig(lengths={200: ["train.epochs=9", "train.num_workers=1"]}, axes={"a": {"x": []}})
    plan = plan_study(study, BASE, given=["train.epochs=7"])
    found = {cell.name: (cell.config.train.epochs, cell.config.train.num_workers) for cell in plan.cells}
    assert found == {"a=x": (7, 1), "real=200 per class": (7, 1)}


def test_words_of_a_cell_win_over_the_length_of_its_size() -> None:
    study = StudyConfig(lengths={200: ["train.epochs=9"]}, axes={"epochs": {"own": ["train.epochs=3"], "kept": []}})
    plan = plan_study(study, BASE)
    assert {cell.name: cell.config.train.epochs for cell in plan.cells} == {
        "epochs=own": 3, "epochs=kept": 9, "real=200 per class": 9, "real=200 per class, as epochs=own": 3,
    }  # fmt: skip


def test_an_axis_keeps_the_order_of_the_file() -> None:
    study = load_study("fashion")
    plan = plan_study(study, BASE)
    for axis, settings in study.axes.items():
        assert [label for label, _ in plan.axes[axis]] == list(settings)


def test_small_cells_come_first() -> None:
    sizes = [cell.config.images_per_class for cell in plan_study(load_study("fashion"), BASE).cells]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("axes: {}", "axes"),
        ("seeds: []\naxes: {a: {x: []}}", "seeds"),
        ("seeds: [0, -1]\naxes: {a: {x: []}}", "seeds.1"),
        ("seeds: [0, 18446744073709551616]\naxes: {a: {x: []}}", "seeds.1"),
        ("seeds: [1, 2, 1]\naxes: {a: {x: []}}", "seeds: 1 stands there more than once"),
        ("axes: {a: {x: []}, b: {}}", "axes: 'b' has no setting"),
        ("sedes: [1]\naxes: {a: {x: []}}", "did you mean 'seeds'"),
        ("axes: {real: {x: []}}", "made by itself"),
        ("axes: {a: {x: [train.epoch=3]}}", "did you mean 'epochs'"),
        ("axes: {a: {x: [train.epochs=0]}}", "train.epochs"),
        ("axes: {a: {x: train.epochs=3}}", "axes.a.x"),
        ("axes: {a: {x: []}}\npaper: {a: {y: {top1: 0.5, certainty: certain}}}", "'y' is no setting of that axis"),
        ("axes: {a: {x: []}}\npaper: {a: {x: {top1: 42.9, certainty: certain}}}", "paper.a.x.top1"),
        ("axes: {a: {x: []}}\npaper: {a: {x: {top1: 0.5, certainty: sure}}}", "certainty"),
        ("axes: {a: {x: []}}\npaper: {a: {x: {top_1: 1}}}", "'paper.a.x.top_1'; did you mean 'top1'"),
    ],
)
def test_a_wrong_study_is_an_input_error(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        plan_study(load_study(str(tmp_path / "s.yaml")), BASE)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_study_or_axis_names_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'fashion'"):
        load_study("fashoin")
    with pytest.raises(InputError, match="did you mean 'guidance'"):
        plan_study(load_study("fashion"), BASE, ["guidence"])
    with pytest.raises(InputError, match="guidance has no such setting; did you mean '7.5'"):
        plan_study(load_study("fashion"), BASE, ["guidance=7.50"])

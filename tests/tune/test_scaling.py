from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.config_loading import load_config
from pipeline.core.errors import InputError
from pipeline.core.study_plan import plan_study
from tests.conftest import Cli
from tests.tiny_sets import training_options
from tune.scaling import grid_study


def test_the_grid_has_an_axis_per_recipe_and_a_setting_per_size() -> None:
    study = grid_study(("c", "c, h_c"), (400, 100, 200), 2, None)
    assert list(study.axes) == ["c", "c, h_c"] and study.seeds == [0, 1]
    assert study.axes["c, h_c"]["200"] == ["recipe.template=c, h_c", "images_per_class=200"]
    assert list(study.axes["c"]) == ["100", "200", "400"]


def test_lengths_come_from_a_study() -> None:
    assert grid_study(("c",), (1, 2, 3), 1, "fashion").lengths[800][0] == "train.epochs=10"


def test_the_trainings_and_twins_of_a_study_are_taken_whole() -> None:
    study = grid_study(("c",), (1267, 12670, 63350), 1, "paper_imagenet100")
    plain = plan_study(study, load_config("imagenet100_sd"))
    assert not any(cell.is_real for cell in plain.cells)  # needs_real_data
    assert {cell.config.train.augmentation for cell in plain.cells} == {"dino_multicrop"}  # base
    given = load_config("imagenet100_sd", overrides=["train.real_data=imagenet/train"])
    twins = [cell.config.images_per_class for cell in plan_study(study, given).cells if cell.is_real]
    assert twins == [1267]  # twin_sizes
    assert not grid_study(("c",), (1, 2, 3), 1, "paper_imagenet100", twins=False).twins


@pytest.mark.parametrize("sizes", [(100, 200), (100, 100, 200)])
def test_too_few_sizes_are_an_input_error(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="at least 3 different --size"):
        grid_study(("c",), sizes, 1, None)


def test_dry_run_says_what_is_to_do_and_writes_nothing(run, tmp_path: Path) -> None:
    words = ["--preset", "fashion", "--root", str(tmp_path / "runs"), "--recipe", "c", "--recipe", "c, d_c"]
    sizes = ["--size", "100", "--size", "200", "--size", "400", "--lengths", "fashion"]
    code, out, err = run("tune.scaling", *words, *sizes, "--dry-run")
    assert code == 0, err
    assert "9 cells, 27 trainings, 27 to do now on 1,260,000 samples" in out and "; 8,000 images to make" in out
    assert "c, d_c=200: 20 epochs" in out and not (tmp_path / "runs").exists()


def test_dry_run_says_which_twins_have_no_images(run, tmp_path: Path) -> None:
    sizes = ["--size", "100", "--size", "200", "--size", "6001"]
    code, out, _ = run("tune.scaling", "--preset", "fashion", "--root", str(tmp_path / "runs"), *sizes, "--dry-run")
    assert code == 0 and "cannot be trained: real=6001 per class: images_per_class must be 1 to 6000" in out


def test_set_wins_over_the_lengths_of_a_study(run, tmp_path: Path) -> None:
    words = ["--preset", "fashion", "--root", str(tmp_path / "runs"), "--no-twins", "--dry-run", "--lengths", "fashion"]
    sizes = ["--size", "200", "--size", "400", "--size", "800"]
    code, out, err = run("tune.scaling", *words, *sizes, "--set", "train.epochs=5")
    assert code == 0, err
    assert out.count(": 5 epochs") == 3


def test_without_twins_only_the_recipes_are_trained(run, tmp_path: Path) -> None:
    words = ["--preset", "fashion", "--root", str(tmp_path / "runs"), "--recipe", "c", "--no-twins", "--dry-run"]
    code, out, err = run("tune.scaling", *words, "--size", "100", "--size", "200", "--size", "400")
    assert code == 0, err
    assert "3 cells, 9 trainings" in out and "real" not in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "100"], "at least 3"),
        (["--name", "../x"], "letters, digits"),
        (["--cluster", "h100x9"], "did you mean 'h100x8'"),
        (["--lengths", "fashoin"], "did you mean 'fashion'"),
        (["--recipe", "{{ nothing }}"], "nothing"),
        (["--recipe", "real"], "the name of the twins' curve"),
    ],
)
def test_bad_input_is_one_line(run, tmp_path: Path, words: list[str], says: str) -> None:
    code, _, err = run("tune.scaling", "--preset", "fashion", "--root", str(tmp_path / "runs"), *words)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and says in line and not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_small_grid_runs_whole_and_again_in_no_time(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    options = training_options(tmp_path / "runs", tiny_model)
    sizes = ["--size", "4", "--size", "8", "--size", "16", "--seeds", "1", "--slots", "2", "--json"]
    summary = cli("tune.scaling", *options, *sizes, timeout_s=900).check_ok().json
    assert [curve["name"] for curve in summary["curves"]] == ["c, h_c", "real images"]
    assert set(summary["curves"][0]["measured"]) == {"40", "80", "160"}
    again = cli("tune.scaling", *options, *sizes, timeout_s=100).check_ok().json
    assert again["trainings_to_do"] == 0 and again["curves"] == summary["curves"]
    assert len(list((tmp_path / "runs" / "images").iterdir())) == 1  # prefixes of one set

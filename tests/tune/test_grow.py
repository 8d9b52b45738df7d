"""`python -m tune.grow`: its options; tests/stages/test_growth.py is about what it proposes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from pipeline.stages.generate import generate
from tests.conftest import Cli
from tests.finished_trainings import finish_grid
from tests.image_sets import write_image_set
from tests.tiny_sets import training_options

SIZES = ["--size", "4", "--size", "8", "--size", "16"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "4", "--images", "500"], "at least 3"),
        ([*SIZES, "--images", "500", "--name", "../x"], "letters, digits"),
        ([*SIZES, "--images", "500", "--start", "5"], "--start 5 is none of the sizes; give one of 4, 8, 16"),
        ([*SIZES, "--images", "500", "--lengths", "fashoin"], "did you mean 'fashion'"),
        ([*SIZES, "--images", "500"], "9 of 9 trainings are not finished"),
        ([*SIZES, "--images", "500", "--seeds", "1"], "'--seeds'"),
        (SIZES, "Missing option '--images'"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(run, tmp_path: Path, words: list[str], says: str) -> None:
    code, _, err = run("tune.grow", "--preset", "fashion", "--root", str(tmp_path / "runs"), *words)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and says in line and not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_whole_way_from_trainings_to_a_training_on_what_was_proposed(
    cli: Cli, tiny_model: Path, noise_folder: Path, tmp_path: Path
) -> None:
    """The uniform set holds real pictures, since nothing is learnt from a random model's; the extra images are its."""
    changes = ["recipe.width=32", "recipe.height=32", "tracking.enabled=false", "train.epochs=4"]
    changes += ["train.mixed_precision=none", "train.input_size=16", f"evaluate.test_set={noise_folder}"]
    options = training_options(tmp_path / "runs", tiny_model) + [word for one in changes for word in ("--set", one)]
    config = load_config("fashion", overrides=[word for word in options if "=" in word])
    store = Store.open(str(tmp_path / "runs"))
    uniform = config.model_copy(update={"images_per_class": 32})
    write_image_set(uniform, store)
    assert generate(uniform, store)["images_made"] == 0  # nothing but the manifest
    finish_grid(config, config.recipe.template, (4, 8, 32), store)
    (tmp_path / "lengths.yaml").write_text("lengths: {4: [train.epochs=9]}\naxes: {a: {x: []}}\n")  # --set wins over it
    sizes = ["--size", "4", "--size", "8", "--size", "32", "--seeds", "2", "--lengths", str(tmp_path / "lengths.yaml")]
    grown = cli("tune.grow", *options, *sizes, "--images", "60", "--validation-images", "50", "--json").check_ok().json
    assert sum(line["images"] for line in grown["classes"]) == 60 and grown["start"] == 32
    folder = tmp_path / "runs" / "studies" / "growth-default"
    extra = ["--config", str(folder / "growth.yaml"), "--per-class", str(folder / "growth.csv")]
    made = cli("jobs.generate", *options, *extra, "--json").check_ok().json
    assert made["rows"] == made["images_made"] == 60
    grown_config = ["--config", str(folder / "growth.yaml"), "--images-per-class", "32"]  # --set would win over it
    trained = cli("jobs.train", *options, *grown_config, "--json").check_ok().json
    assert trained["num_images"] == 320 + 60 and trained["data"]["extra"]["sha256"] == made["set_sha256"]
    study = ["--study", str(folder / "growth-default.yaml"), "--dry-run"]
    assert "growth=targeted" in cli("jobs.study", *options, *study).check_ok().stdout

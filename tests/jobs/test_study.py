from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.tiny_sets import options, training_options

STUDY = """
seeds: [0, 1]
axes:
  guidance: {"1": [recipe.guidance_scale=1], "2": [recipe.guidance_scale=2]}
"""


def words(root: Path, model: Path, study: Path) -> list[str]:
    return [*training_options(root, model), "--study", str(study)]


def test_dry_run_prints_the_plan_and_writes_nothing(run, tiny_model: Path, tmp_path: Path) -> None:
    whole = [*options(tiny_model, tmp_path / "runs"), "--study", "fashion", "--images-per-class", "200", "--dry-run"]
    code, out, _ = run("study", *whole)
    assert code == 0 and not (tmp_path / "runs").exists()
    assert "12 cells, 36 trainings, 36 to do now" in out
    assert "guidance=1 recipe=c, h_c images=1x: 20 epochs" in out and "images=10x: 6 epochs" in out
    code, out, _ = run("study", *whole, "--set", "train.epochs=2")
    assert "images=1x: 2 epochs" in out and "images=10x: 2 epochs" in out


def test_dry_run_on_a_cluster_says_what_each_row_costs(run, tiny_model: Path, tmp_path: Path) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(STUDY)
    clusters = ["--dry-run", "--cluster", "local"]
    code, _, err = run("study", *words(tmp_path / "runs", tiny_model, study), *clusters)
    assert code == 2 and "or give --images-per-s" in err  # no speed is known of a model that nobody timed
    known = [*clusters, "--images-per-s", "2"]
    code, out, err = run("study", *words(tmp_path / "runs", tiny_model, study), *known)
    assert code == 0 and "2 images/s per GPU (given by --images-per-s)" in out, err
    code, _, err = run("study", *words(tmp_path / "runs", tiny_model, study), *known, "--clusters", "none.yaml")
    assert code == 2 and "none.yaml" in err
    code, _, err = run("study", *words(tmp_path / "runs", tiny_model, study), "--dry-run", "--spot")
    assert code == 2 and "price rows of --cluster NAME" in err
    code, _, err = run("study", *words(tmp_path / "runs", tiny_model, study), "--cluster", "local")
    assert code == 2 and "--dry-run" in err


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_small_study_runs_whole_and_again_in_no_time(cli: Cli, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    options = [*words(tmp_path / "runs", tiny_model, tmp_path / "small.yaml"), "--json"]
    first = cli("jobs.study", *options, "--max-cells", "1", timeout_s=700).check_ok().json
    assert (first["trainings"], first["trainings_to_do"], len(first["results"])) == (6, 4, 2)
    summary = cli("jobs.study", *options, "--slots", "2", timeout_s=700).check_ok().json
    assert summary["trainings_to_do"] == 0 and len(summary["results"]) == 6
    assert summary["results"][:2] == first["results"]
    table = (tmp_path / "runs" / "studies" / "small" / "table.md").read_text()
    assert "Incomplete" not in table and "±" in table

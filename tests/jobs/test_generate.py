import json
import shutil
from pathlib import Path

import pytest

from pipeline.stages import generate as stage
from tests.conftest import Cli
from tests.tiny_sets import options


def test_the_command_makes_a_set_and_says_what_it_did(tiny_model: Path, tmp_root: str, cli: Cli):
    settings = [f"recipe.model.id={tiny_model}", "recipe.width=16", "recipe.height=16", "recipe.num_inference_steps=1"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = cli("jobs.generate", "--preset", "fashion", "--images-per-class", "10", "--root", tmp_root, "--json", *sets)
    summary = done.check_ok().json
    assert (summary["rows"], summary["ok"], summary["images_made"]) == (100, 100, 100)
    assert f"100 images in {tmp_root}/images/" in done.stdout and summary["set_sha256"] in done.stdout
    assert (Path(tmp_root) / summary["images_dir"] / "manifest.json").exists()
    assert summary["mlflow_run_id"] and (Path(tmp_root) / "mlflow.db").exists()
    for advice in ("rogress bars disabled", "oken authentication is"):  # Ray's, about what was decided here
        assert advice not in done.stdout + done.stderr


@pytest.mark.usefixtures("ray_cluster")
def test_a_job_that_was_stopped_by_its_failures_stops_at_once_when_resumed(
    tiny_model: Path, tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is real: this scheduler refuses more steps than it was trained with, once it is called."""
    model = shutil.copytree(tiny_model, tmp_path / "flaky")
    settings = model / "scheduler" / "scheduler_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "num_train_timesteps": 1}))
    changes = {
        "recipe.scheduler": "DDIMScheduler",
        "recipe.num_inference_steps": 2,
        "generate.max_failed_fraction": 1,
    }
    words = [*options(model, tmp_path / "runs", changes), "--max-failed-rows", "3"]
    code, _, err = run("generate", *words)
    assert code == 1 and "10 of 40 images" in err and "max_failed_rows=3 allows (10 x ValueError" in err
    monkeypatch.setattr(stage, "make_shards", lambda *_, **__: pytest.fail("it draws"))
    code, _, err = run("generate", *words)
    assert code == 1 and "max_failed_rows=3 allows (" in err and "0 x ValueError" in err


@pytest.mark.usefixtures("ray_cluster")
def test_a_table_of_classes_makes_those_images_and_no_others(tiny_model: Path, tmp_path: Path, run) -> None:
    words = options(tiny_model, tmp_path / "runs", {"images_per_class": 1})
    assert run("generate", *words)[0] == 0
    table = tmp_path / "growth.csv"
    table.write_text("class,images\nSandal,7\nBag,1\n")
    code, out, _ = run("generate", *words, "--per-class", str(table), "--json")
    summary = json.loads(out.splitlines()[-1])
    assert code == 0 and (summary["rows"], summary["images_made"], sorted(summary["per_class"].values())) == (
        15,
        15,
        [1, 7],
    )
    assert "15 extra images of 2 classes in" in out and summary["set_sha256"] in out
    assert len(list((tmp_path / "runs" / summary["images_dir"] / "shards").iterdir())) == 1
    code, out, _ = run("generate", *words, "--per-class", str(table))
    assert code == 0 and "0 made now" in out

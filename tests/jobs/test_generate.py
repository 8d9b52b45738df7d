from pathlib import Path

from tests.conftest import Cli


def test_the_command_makes_a_set_and_says_what_it_did(tiny_model: Path, tmp_root: str, cli: Cli):
    settings = [f"recipe.model.id={tiny_model}", "recipe.width=16", "recipe.height=16", "recipe.num_inference_steps=1"]
    sets = [word for setting in settings for word in ("--set", setting)]
    done = cli("jobs.generate", "--preset", "fashion", "--images-per-class", "10", "--root", tmp_root, "--json", *sets)
    summary = done.check_ok().json
    assert (summary["rows"], summary["ok"], summary["images_made"]) == (100, 100, 100)
    assert f"100 images in {tmp_root}/images/" in done.stdout and summary["set_sha256"] in done.stdout
    assert (Path(tmp_root) / summary["images_dir"] / "manifest.json").exists()
    assert summary["mlflow_run_id"] and (Path(tmp_root) / "mlflow.db").exists()

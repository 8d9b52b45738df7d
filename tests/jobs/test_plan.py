"""`jobs.plan` in this process: what it prints, and that it writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from tests.image_sets import NO_MODEL, small_config, write_image_set


def test_a_big_preset_before_anything_runs(run, tmp_path: Path) -> None:
    code, out, _ = run("plan", "--preset", "imagenet100_sd", "--root", str(tmp_path / "runs"), "--spot", "--json")
    found = json.loads(out.splitlines()[-1])
    assert code == 0 and found["actual"] is None and not (tmp_path / "runs").exists()
    assert found["plan"]["cluster"] == "h200x8" and found["plan"]["market"] == "spot"
    assert "on 1 of 8 GPUs (--set generate.num_actors=8 takes more)" in out
    assert "126,720 of 100 classes in 495 shards" in out and "per million images" in out


def test_what_is_there_already_stands_beside_the_plan(run, tmp_path: Path) -> None:
    config = small_config(images_per_class=6, shard_size=30)
    write_image_set(config, Store.open(str(tmp_path)))
    words = [f"recipe.model.id={NO_MODEL['id']}", f"recipe.model.revision={NO_MODEL['revision']}"]
    words += ["recipe.guidance_scale=2", "images_per_class=12", "generate.shard_size=30"]
    sets = [word for setting in words for word in ("--set", setting)]
    code, out, _ = run("plan", "--preset", "fashion", "--root", str(tmp_path), *sets)
    assert code == 0 and "120 of 10 classes" in out and "measured on the 2 shards" in out
    assert "there already  60 images" in out and " GB, 0 prompts cut" in out


@pytest.mark.parametrize(("words", "is_said"), [(75, False), (76, True)])
def test_a_negative_prompt_that_is_cut_is_said(words: int, is_said: bool, run, tmp_path: Path) -> None:
    negative = f"recipe.negative_prompt={'very ' * words}"
    small = ["--images-per-class", "1", "--set", negative, "--root", str(tmp_path)]
    code, out, _ = run("plan", "--preset", "imagenet100_sd", *small)
    assert code == 0 and (f"the negative prompt too: it has {words + 2} tokens" in out) is is_said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--cluster", "h200"], "did you mean 'h200x8'"),
        (["--clusters", "none.yaml"], "none.yaml"),
        (["--images-per-s", "0"], "--images-per-s"),
        (["--preset", "fashion", "--root", "/tmp/nothing-here"], "--images-per-class 1"),
    ],
)
def test_wrong_input_is_one_line(words: list[str], says: str, run) -> None:
    preset = [] if "--preset" in words else ["--preset", "imagenet100_sd"]
    code, _, err = run("plan", *preset, *words)
    assert code == 2 and says in err and "Traceback" not in err

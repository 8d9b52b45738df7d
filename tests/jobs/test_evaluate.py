from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.evaluate import main
from pipeline.cli import run_job
from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from tests.tiny_models import build_tiny_model


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One image of each class."""
    root = tmp_path_factory.mktemp("real")
    for label, wnid in enumerate(load_class_table("fashion_mnist").wnids):
        out = io.BytesIO()
        noise = np.random.default_rng(label).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(out, "PNG")
        (root / wnid).mkdir()
        (root / wnid / "0.png").write_bytes(out.getvalue())
    return root


@pytest.fixture
def run_main(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command in this process: (exit code, stderr). A process of its own takes seconds to import torch."""

    def run(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr("sys.argv", ["jobs.evaluate", *arguments])
        with pytest.raises(SystemExit) as caught:
            run_job(main)
        return caught.value.code, capsys.readouterr().err

    return run


def options(root: str, real_folder: Path) -> list[str]:
    settings = [f"evaluate.test_set={real_folder}", "evaluate.torch_threads=1", "tracking.enabled=false"]
    return ["--preset", "fashion", "--root", root, *(word for text in settings for word in ("--set", text))]


def test_it_prints_the_verdict_of_named_models_and_json_last(cli, save_model, tmp_root: str, real_folder: Path):
    store = Store.open(tmp_root)
    names = [save_model(store, data, seed).removeprefix("models/") for data, seed in (("synthetic", 0), ("real", 1))]
    chosen = [word for name in names for word in ("--model", name)]
    more = (f"test_sets.mine={real_folder}", "test_sets.imagenet_a=nowhere", "corruptions.names=pixelate")
    sets = [word for text in more for word in ("--set", f"evaluate.{text}")]
    result = cli("jobs.evaluate", *options(tmp_root, real_folder), *sets, *chosen, "--json").check_ok()
    missing, *_, header, synthetic, real, gap = result.stdout.splitlines()[:-10]
    *shift, corrupted, of_synthetic, of_real, report, _ = result.stdout.splitlines()[-10:]
    assert missing.startswith("evaluate: left out: test set 'nowhere'") and "natural-adv-examples" in missing
    assert [line.split()[-3:] for line in shift[:1]] == [["synthetic", "real", "gap"]] and len(shift) == 5
    assert corrupted.split() == ["corrupted,", "10", "images", "clean", "corrupted", "relative", "digital"]
    assert of_synthetic.split()[0] == "synthetic" and len(of_real.split()) == 5
    assert list(result.json["missing_test_sets"]) == ["imagenet_a"]
    assert header.split() == ["trained", "on", "images", "seeds", "top-1", "top-5", "ECE"]
    assert synthetic.split()[:3] == ["synthetic", "29", "1"] and real.split()[:3] == ["real", "29", "1"]
    assert gap.startswith("gap to real: ") and "10 real test images" in gap
    assert report == f"report: {result.json['report']}" and Path(result.json["report"]).is_file()
    assert result.json["gap"] == pytest.approx(result.json["real_top1"] - result.json["synthetic_top1"])


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--model", "none"], ["models/none", "jobs.train"]),
        (["--model", "../models/x"], ["'../models/x' is no directory name", "16 digits"]),
        (["--model", "a", "--twin"], ["leave out --seed and --twin"]),
        (["--seed", "-1"], ["--seed"]),
    ],
)
def test_wrong_input_is_one_line(run_main, tmp_root: str, real_folder: Path, arguments: list[str], parts: list[str]):
    code, error = run_main(*options(tmp_root, real_folder), *arguments)
    assert code == 2 and all(part in error for part in parts) and len(error.splitlines()) == 1
    assert not Path(tmp_root).exists()


def test_a_missing_twin_says_how_to_train_it(run_main, tmp_root: str, tmp_path: Path, real_folder: Path):
    tiny = build_tiny_model(tmp_path / "tiny")
    words = [*options(tmp_root, real_folder), "--set", f"recipe.model.id={tiny}"]
    code, error = run_main(*words, "--twin", "--seed", "3")
    assert code == 2
    assert "synthetic images with seed 3" in error and "--set train.data=synthetic --set train.seed=3" in error


def test_a_tracking_server_that_is_down_is_one_line(
    run_main, monkeypatch, save_model, tmp_root: str, real_folder: Path
):
    name = save_model(Store.open(tmp_root), "synthetic").removeprefix("models/")
    words = [*options(tmp_root, real_folder), "--set", "tracking.enabled=true", "--model", name]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    code, error = run_main(*words)
    assert code == 2 and "http://127.0.0.1:9" in error and "tracking.enabled=false" in error
    assert not (Path(tmp_root) / "reports").exists()

"""A model is registered by the command, and read back the way a user without this project reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.artifact import Store
from pipeline.core.augment import eval_transform
from pipeline.core.classifier import load_classifier
from pipeline.core.config_loading import load_config
from pipeline.stages.tracking import tracked_run

READ_BACK = """
import json, sys, mlflow.pytorch, numpy, torch
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pytorch.load_model(sys.argv[2])
pictures = torch.from_numpy(numpy.load("pictures.npy"))
numpy.save("logits.npy", model(pictures).detach().numpy())
names = [name for name in sys.modules if name.split(".")[0] in ("pipeline", "torchvision")]
signature = mlflow.models.get_model_info(sys.argv[2]).signature.to_dict()
print(json.dumps({"names": names, "inputs": json.loads(signature["inputs"])}))
"""


def test_the_registered_model_needs_neither_this_project_nor_pickle(run, save_model, tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    directory = save_model(store, "synthetic")
    model_id = directory.removeprefix("models/")
    with tracked_run(load_config("fashion"), store, "train", model_id, {}, {}):
        pass
    words = ["--preset", "fashion", "--root", str(tmp_path), "--model", model_id, "--alias", "best", "--json"]
    code, out, err = run("jobs.register", *words)
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["model_uri"] == "models:/synthclones-fashion_mnist@best" and found["version"] == "1"
    assert [path.name for path in tmp_path.rglob("*") if path.suffix in (".pkl", ".pth", ".pickle")] == []
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    command = [sys.executable, "-c", READ_BACK, found["tracking_uri"], found["model_uri"]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["names"] == []
    assert told["inputs"][0]["tensor-spec"] == {"dtype": "uint8", "shape": [-1, 32, 32, 3]}
    with torch.inference_mode():
        expected = load_classifier(store, directory).model(eval_transform(torch.from_numpy(pictures), 32))
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize(("words", "says"), [((), "run `python -m jobs.train`"), (("--model", "../x"), "16 digits")])
def test_bad_input_is_one_line(run, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    code, _, err = run("jobs.register", "--preset", "fashion", "--root", str(tmp_path / "runs"), *words)
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert code == 2 and says in line and not (tmp_path / "runs").exists()

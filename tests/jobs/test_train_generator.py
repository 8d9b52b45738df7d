"""The command that trains the embedded generator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Cli

TINY = (
    "text.hidden_size=16",
    "text.num_layers=1",
    "vae.block_out_channels=[8,8,8]",
    "vae.norm_num_groups=4",
    "vae.num_steps=2",
    "unet.block_out_channels=[8,8,16]",
    "unet.norm_num_groups=4",
    "unet.num_steps=2",
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.train_generator", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_trains_on_the_real_images_and_writes_the_directory(tmp_path: Path) -> None:
    overrides = [word for pair in TINY for word in ("--set", pair)]
    done = run("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--json", *overrides)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary == json.loads((tmp_path / "out" / "training.json").read_text())
    assert summary["command"].startswith("python -m jobs.train_generator --work")
    assert summary["unet"]["steps"] == 2
    assert (tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "unet.steps=3"), ("unknown key", "num_steps")),
        (("--set", "vae.learning_rate=-1"), ("vae.learning_rate",)),
        (("--preset", "nothing"), ("'nothing' is unknown", "fashion")),
        (("--data-dir", "/nowhere"), ("/nowhere",)),
        (("--set", "vae.norm_num_groups=3"), ("vae: ", "channels 16", "norm_num_groups")),
        (("--set", "seed=99999999999999999999"), ("seed",)),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = run("--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--out", "--work"])
def test_a_uri_is_refused(tmp_path: Path, here: Cli, option: str) -> None:
    places = {"--out": tmp_path / "out", "--work": tmp_path / "work", option: "s3://bucket/model"}
    words = [word for pair in places.items() for word in pair]
    done = here("jobs.train_generator", *words, "--data-dir", "/nowhere")
    done.check_error(2, f"{option} 's3://bucket/model' is a URI", "the path of a disk that all nodes share")
    assert not (REPOSITORY / "s3:").exists() and not list(tmp_path.iterdir())

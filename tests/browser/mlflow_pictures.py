"""Takes the pictures of docs/tracking.md: a small sweep and two trainings against a real `mlflow server`, in Chromium.

    .venv/bin/python -m tests.browser.mlflow_pictures --folder /tmp/pictures

Minutes on two cores. The folder keeps server and runs: the same command takes the pictures again in seconds.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import yaml
from PIL import Image

from tests.browser.chromium import running_chromium
from tests.browser.mlflow_pages import see
from tests.mlflow_servers import MlflowServer

REPOSITORY = Path(__file__).parents[2]
SPACE: dict[str, Any] = {
    "search": "random",
    "num_trials": 8,
    "validation": {"images_per_class": 50},
    "early_stopping": {"min_epochs": 3, "reduction_factor": 3},
    "base": ["train.epochs=6", "train.warmup_epochs=1", "train.num_workers=1", "generate.num_actors=1"],
    "space": {
        "recipe.guidance_scale": {"choice": [1.0, 2.0]},
        "images_per_class": {"choice": [20, 40]},
        "train.learning_rate": {"loguniform": [0.05, 0.8]},
        "train.min_crop_scale": {"uniform": [0.3, 1.0]},
    },
}
TWIN = ["images_per_class=40", "train.epochs=12", "train.num_workers=1", "generate.num_actors=1"]
PARALLEL = "document.querySelector('.parcoords text.label')"
COLOURS = 64
"""Of the PNG files: pages have few, and they stay small."""


def run(module: str, *words: str, uri: str) -> dict[str, Any]:
    """What a command's `--json` says."""
    command = [sys.executable, "-m", module, "--preset", "fashion", "--json", *words]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    click.echo(done.stdout)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found["charts"] = next((line.split(": ", 1)[1] for line in done.stdout.splitlines() if "charts in" in line), "")
    return found


def addresses(folder: Path, uri: str) -> dict[str, str]:
    """Make what is to be seen, where it is not there yet; the address of each page by its picture's name."""
    root = ["--root", str(folder / "runs")]
    space = folder / "small.yaml"
    space.write_text(yaml.safe_dump(SPACE, sort_keys=False))
    sweep = run("tune.sweep", *root, "--space", str(space), uri=uri)
    settings = [word for pair in TWIN for word in ("--set", pair)]
    images = run("jobs.generate", *root, *settings, uri=uri)
    twins = [
        run("jobs.train", *root, *settings, "--set", f"train.data={data}", uri=uri)["mlflow_run_id"]
        for data in ("synthetic", "real")
    ]
    from mlflow.tracking import MlflowClient

    experiment = MlflowClient(uri).get_run(images["mlflow_run_id"]).info.experiment_id
    training = "workflowType=machine_learning"  # not the pages for language models
    gallery = f"{uri}/#/experiments/{experiment}/runs/{images['mlflow_run_id']}/artifacts/gallery.html?{training}"
    both = f"runs={json.dumps(twins)}&experiments={json.dumps([experiment])}"
    return {
        "mlflow_sweep": sweep["charts"],
        "mlflow_compare": f"{uri}/#/compare-runs?{both}&{training}",
        "mlflow_gallery": gallery,
    }


def save(path: Path, png: bytes) -> None:
    """Write a picture with few colours."""
    Image.open(io.BytesIO(png)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    click.echo(f"{path}: {path.stat().st_size:,} bytes")


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), required=True, help="Kept.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=REPOSITORY / "docs" / "images")
def main(folder: Path, out: Path) -> None:
    """Take all pictures."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    (folder / "server").mkdir(parents=True, exist_ok=True)
    server = MlflowServer(folder.absolute() / "server")
    server.start()
    look: dict[str, tuple[str, int]] = {
        "mlflow_sweep": (PARALLEL, 1180),
        "mlflow_compare": ("document.querySelector('.parcoords, .js-plotly-plot')", 1100),
        "mlflow_gallery": ("document.body.innerText.includes('gallery.html')", 900),
    }
    try:
        found = addresses(folder.absolute(), server.uri)
        with tempfile.TemporaryDirectory() as profile, running_chromium(program, Path(profile)) as browser:
            for name, (is_there, height) in look.items():
                seen = see(browser, found[name], is_there, height)
                save(out / f"{name}.png", seen["screenshot"])
    finally:
        server.kill()


if __name__ == "__main__":
    main()

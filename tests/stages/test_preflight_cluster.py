"""What is wrong with a cluster is one line, exit code 2 or 1, seconds after the command: for a driver that joins it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import ray

from pipeline.core.artifact import Store
from tests.cluster_head import ClusterHead
from tests.conftest import REPOSITORY, Cli, SaveModel
from tests.tiny_sets import options

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SECONDS = 120.0
"""Four commands at once, each of which imports for 15 CPU seconds, on two cores; then 30 s for a node to join."""


@dataclass(frozen=True)
class Ended:
    code: int
    seconds: float
    text: str

    def check(self, code: int, *parts: str) -> None:
        """Exit code and one line as the last one, in time."""
        errors = [line for line in self.text.splitlines() if line.startswith("error: ")]
        assert self.code == code and len(errors) == 1 and "Traceback" not in self.text, self.text[-4000:]
        assert self.text.rstrip().endswith(errors[0]), self.text[-4000:]
        assert all(part in errors[0] for part in parts), errors
        assert self.seconds < SECONDS, self


@pytest.fixture(scope="module")
def ended(
    s3_root: str, tiny_model: Path, noise_folder: Path, save_model: SaveModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Ended]]:
    """Commands on a cluster of one node without GPUs, whose workers have wrong credentials; all at once."""
    folder = tmp_path_factory.mktemp("preflight")
    torn = shutil.copytree(tiny_model, folder / "torn")
    (torn / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    root = folder / "runs"
    model = save_model(Store.open(str(root)), "synthetic").removeprefix("models/")
    cuda = [
        "--set",
        "train.data=real",
        "--set",
        "train.batch_size=20",
        "--set",
        "train.device=cuda",
        "--set",
        "train.mixed_precision=none",
    ]
    commands = {
        "storage": ["jobs.generate", *options(tiny_model, f"{s3_root}/preflight")],
        "weights": ["jobs.generate", *options(torn, root)],
        "train": ["jobs.train", *options(tiny_model, root), *cuda],
        "evaluate": [
            "jobs.evaluate", *options(tiny_model, root), "--model", model,
            "--set", "evaluate.device=cuda", "--set", f"evaluate.test_set={noise_folder}",
        ],
    }  # fmt: skip
    head = ClusterHead(4, {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "wrong"})
    try:
        environment = {**os.environ, **head.client_environment, "RAY_ADDRESS": head.gcs_address}
        began_s, running = time.monotonic(), {}
        for name, words in commands.items():
            with open(folder / f"{name}.log", "wb") as log:
                running[name] = subprocess.Popen(
                    [sys.executable, "-m", *words], cwd=REPOSITORY, env=environment, stdout=log, stderr=log
                )
        found: dict[str, Ended] = {}
        while len(found) < len(running):
            seconds = time.monotonic() - began_s
            for name, process in running.items():
                if name not in found and (process.poll() is not None or seconds > 4 * SECONDS):
                    process.kill()
                    found[name] = Ended(process.wait(), seconds, (folder / f"{name}.log").read_text())
            time.sleep(0.2)
        yield found
    finally:
        head.close()


def test_workers_that_may_not_write_the_storage_say_so(ended: dict[str, Ended]) -> None:
    ended["storage"].check(1, "preflight.json")


def test_torn_weights_are_named(ended: dict[str, Ended]) -> None:
    ended["weights"].check(2, "torn")


def test_a_training_on_gpus_that_nobody_has_is_refused(ended: dict[str, Ended]) -> None:
    ended["train"].check(2, "no node of the cluster has 1 CPU, 1 GPU", "train.device=cpu")


def test_an_evaluation_on_a_gpu_that_nobody_has_is_refused(ended: dict[str, Ended]) -> None:
    ended["evaluate"].check(2, "no node of the cluster has 1 CPU, 1 GPU", "evaluate.device=cpu")


class OtherRay(BaseHTTPRequestHandler):
    """Answers as the jobs API of a cluster with an older Ray."""

    def do_GET(self) -> None:
        body = json.dumps({"version": "4", "ray_version": "2.9.0", "ray_commit": "x", "session_name": "x"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_a_cluster_with_another_ray_takes_no_job(here: Cli) -> None:
    server = HTTPServer(("127.0.0.1", 0), OtherRay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        words = ["--address", f"http://127.0.0.1:{server.server_port}", "--", "python", "-m", "jobs.generate"]
        refused = here("jobs.submit", *words, env={"RAY_AUTH_MODE": None})
    finally:
        server.shutdown()
    refused.check_error(2, "runs Ray 2.9.0", f"this machine {ray.__version__}", "requirements.lock")

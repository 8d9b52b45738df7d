"""Weights from a hub, by real processes of one machine at the same time, from a hub on this machine that counts calls.

Only the hub is made up: a real one costs the network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pipeline.core.config import ModelConfig, RecipeConfig
from pipeline.core.diffusion import DiffusionEngine
from tests.conftest import REPOSITORY
from tests.hub_server import COMMIT, REPO, SLOW_PART, Hub, running_hub
from tests.tiny_models import build_tiny_checker

FETCH = """
import sys
from pipeline.core.config import ModelConfig
from pipeline.core.errors import WorkError
from pipeline.core.model_source import CHECKER, PIPELINE, local_model_dir
print("starts", flush=True)
repository, commit, layout, *variant = sys.argv[1:]
try:
    print(local_model_dir(ModelConfig(id=repository, revision=commit, variant=variant[0] if variant else None),
                          {"pipeline": PIPELINE, "checker": CHECKER}[layout]))
except WorkError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
CLIENT_IS_GONE = """
from huggingface_hub import set_client_factory
set_client_factory(lambda: None)
"""
"""What a thread finds when another has closed the client; the moment for it cannot be had at will."""
UNET = "unet/diffusion_pytorch_model"
IN_ONE_FILE = "v1-5-pruned-emaonly.safetensors"
OTHER_PARTS = "text_encoder/model.fp16-00001-of-00002.safetensors"


@pytest.fixture
def fetchers(tmp_path: Path) -> Iterator[Fetchers]:
    started = Fetchers(tmp_path / "cache")
    yield started
    for process in started.processes:
        process.kill()
        process.wait()


class Fetchers:
    """Processes that share a hub cache, as the actors of a node do."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.processes: list[subprocess.Popen[str]] = []

    def start(
        self, hub: Hub, *variant: str, first: str = "", layout: str = "pipeline", **variables: str
    ) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", first + FETCH, REPO, COMMIT, layout, *variant]
        environment = {**os.environ, **hub.environment, "HF_HUB_CACHE": str(self.cache), **variables}
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "starts\n"
        return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out.strip(), err.strip().splitlines()[-1] if err.strip() else ""


def content(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def wait_for_bytes(hub: Hub, count: int) -> None:
    deadline = time.monotonic() + 60
    while hub.bytes_sent < count:
        assert time.monotonic() < deadline, "nothing is fetched"
        time.sleep(0.01)


@pytest.fixture
def published(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as hubs lay models out: the whole once more in the root, and some components' variants."""
    copy = shutil.copytree(tiny_model, tmp_path / "published")
    halved = {name: tensor.half() for name, tensor in load_file(copy / f"{UNET}.safetensors").items()}
    save_file(halved, copy / f"{UNET}.fp16.safetensors", metadata={"format": "pt"})
    for name in (IN_ONE_FILE, f"{UNET}.non_ema.safetensors", OTHER_PARTS):
        (copy / name).write_text(name)  # of a content of its own: equal files are fetched once
    return copy


def asked_for(hub: Hub) -> set[str]:
    """The files of a repository that were fetched."""
    return {name for name in hub.files if hub.calls[f"GET {name}"]}


def draws(directory: Path, variant: str | None) -> bool:
    """Whether the snapshot is all that a recipe's pipeline loads."""
    recipe = RecipeConfig(model=ModelConfig(variant=variant), width=16, height=16, num_inference_steps=1)
    return len(DiffusionEngine(directory, recipe, 1, "cpu").generate(["a bag"], [1])) == 1


def test_weights_that_a_pipeline_does_not_load_are_not_fetched(published: Path, fetchers: Fetchers):
    with running_hub(published) as hub:
        code, out, err = finish(fetchers.start(hub))
        needless = {IN_ONE_FILE, f"{UNET}.fp16.safetensors", f"{UNET}.non_ema.safetensors", OTHER_PARTS}
        assert code == 0 and asked_for(hub) == hub.files.keys() - needless, err
    assert draws(Path(out), variant=None)


def test_a_variant_is_fetched_beside_the_plain_weights_of_components_that_lack_it(published: Path, fetchers: Fetchers):
    (published / OTHER_PARTS).unlink()
    with running_hub(published) as hub:
        code, out, err = finish(fetchers.start(hub, "fp16"))
        needless = {IN_ONE_FILE, f"{UNET}.non_ema.safetensors"}
        assert code == 0 and asked_for(hub) == hub.files.keys() - needless, err
    (Path(out) / f"{UNET}.safetensors").unlink()  # the component that has the variant is loaded from it
    assert draws(Path(out), variant="fp16")


def test_a_snapshot_without_the_variant_is_completed(published: Path, fetchers: Fetchers):
    with running_hub(published) as hub:
        assert finish(fetchers.start(hub))[0] == 0
        hub.calls.clear()
        code, _, err = finish(fetchers.start(hub, "fp16"))
        assert code == 0 and asked_for(hub) == {f"{UNET}.fp16.safetensors", OTHER_PARTS}, err


def test_a_checker_is_fetched_with_the_weights_of_its_root(tmp_path: Path, fetchers: Fetchers):
    with running_hub(build_tiny_checker(tmp_path / "checker")) as hub:
        code, _, err = finish(fetchers.start(hub, layout="checker"))
        assert code == 0 and asked_for(hub) == hub.files.keys() and "model.safetensors" in hub.files, err


def test_a_snapshot_that_was_fetched_whole_needs_no_hub(published: Path, fetchers: Fetchers):
    fetch = "import huggingface_hub, sys; huggingface_hub.snapshot_download(sys.argv[1], revision=sys.argv[2])"
    with running_hub(published) as hub:
        environment = {**os.environ, **hub.environment, "HF_HUB_CACHE": str(fetchers.cache)}
        subprocess.run([sys.executable, "-c", fetch, REPO, COMMIT], env=environment, check=True, capture_output=True)
        assert asked_for(hub) == hub.files.keys()
        hub.calls.clear()
        code, out, err = finish(fetchers.start(hub))
        assert code == 0 and not hub.calls and content(Path(out)) == content(published), err


def test_processes_that_start_together_fetch_once_and_need_no_hub_afterwards(tiny_model: Path, fetchers: Fetchers):
    with running_hub(tiny_model, wait_s=0.01) as hub:
        ends = [finish(process) for process in [fetchers.start(hub) for _ in range(4)]]
        assert {code for code, _, _ in ends} == {0} and len({out for _, out, _ in ends}) == 1, ends
        expected = [f"GET /api/models/{REPO}/tree/{COMMIT}", *(f"GET {name}" for name in hub.files)]
        assert {call: hub.calls[call] for call in expected} == dict.fromkeys(expected, 1)
    code, out, err = finish(fetchers.start(hub))  # nobody answers there any more
    assert code == 0 and content(Path(out)) == content(tiny_model), err


def test_a_killed_fetch_is_taken_over_by_the_one_that_waits(tiny_model: Path, fetchers: Fetchers):
    with running_hub(tiny_model, wait_s=0.05) as hub:
        first = fetchers.start(hub)
        wait_for_bytes(hub, 4 * SLOW_PART)
        second = fetchers.start(hub)
        time.sleep(0.5)
        assert second.poll() is None and hub.calls[f"GET /api/models/{REPO}/tree/{COMMIT}"] == 1
        first.kill()
        first.wait()
        hub.wait_s = 0
        code, out, err = finish(second)
    assert code == 0 and content(Path(out)) == content(tiny_model), err


def test_what_a_killed_fetch_left_is_never_taken_for_whole(tiny_model: Path, fetchers: Fetchers):
    with running_hub(tiny_model, wait_s=0.05) as hub:
        process = fetchers.start(hub)
        snapshot = fetchers.cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / COMMIT
        while not snapshot.exists() or not content(snapshot):  # some files are there
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
        process.wait()
    assert content(snapshot) != content(tiny_model)
    code, _, err = finish(fetchers.start(hub, HF_HUB_OFFLINE="1"))  # one that does not answer is asked for 50 s
    assert code == 1 and err.startswith("WorkError: ") and "cannot be fetched" in err
    with running_hub(tiny_model) as hub:
        code, out, err = finish(fetchers.start(hub))
    assert code == 0 and content(Path(out)) == content(tiny_model), err


def test_a_client_that_another_thread_has_closed_is_a_hub_that_does_not_answer(tiny_model: Path, fetchers: Fetchers):
    with running_hub(tiny_model) as hub:
        code, _, err = finish(fetchers.start(hub, first=CLIENT_IS_GONE))
    assert code == 1 and err.startswith("WorkError: ") and "cannot be fetched" in err

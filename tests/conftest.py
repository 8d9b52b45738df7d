"""What every test may use: a Ray of its own, a storage root, and the commands as a user runs them."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from pipeline.core.artifact import Store
from tests.crash_report import crash_report
from tests.lanes import CLUSTERS, LaneScheduling, lane

REPOSITORY = Path(__file__).parent.parent
FORWARDED = re.compile(r"(\x1b\[\d+m)?\((raylet|autoscaler|(.+ )?pid=)")

# A test that needs a hub would pass here and fail behind a firewall. Set before any test file imports the hub's client.
os.environ["HF_HUB_OFFLINE"] = "1"

# How long an example takes says how busy the machine is; a test that hangs has its own timeout.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Clusters first and the many short ones of core last, so that no process waits long for the other at the end."""

    def place(item: pytest.Item) -> tuple[bool, bool]:
        return lane(item.nodeid) != CLUSTERS, item.nodeid.startswith("tests/core/")

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Two processes take lanes, not tests."""
    return LaneScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """A process of pytest-xdist's that died in a test leaves what is known of its end in the output."""
    if error is not None:
        process: subprocess.Popen[bytes] = node.gateway._io.popen
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
        print(f"\n{node.gateway.id}: {crash_report(process.returncode)}", flush=True)


@pytest.fixture(scope="session", autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty HOME and none of the developer's settings, so that a test means the same on every machine.

    Where fetched data lies stays as it is: fetching it again for each run would test the network.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv("NLTK_DATA", os.environ.get("NLTK_DATA") or str(Path.home() / "nltk_data"))
    patch.setenv("XDG_CACHE_HOME", os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"))
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "RAY_ADDRESS", "XDG_CONFIG_HOME"):
        patch.delenv(name, raising=False)
    # Linux shares cores by session: a starting node, 29 CPU seconds, has as much of them as any one worker elsewhere.
    patch.setenv("RAY_raylet_start_wait_time_s", "480")
    patch.setenv("RAY_worker_niceness", "0")  # the default of 15 starves them on a machine that does other work too
    yield
    patch.undo()


@pytest.fixture(scope="session")
def ray_sessions() -> Iterator[ExitStack]:
    """The Ray sessions of this process, ended with it."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def ray_cluster(s3_root: str, ray_sessions: ExitStack) -> None:
    """A Ray of 4 planned CPUs on this machine, shared by all test files that do not need one of their own.

    Workers inherit the environment that it starts in, so the S3 server is there first. There is one Ray per process: a
    thread left from one that was shut down may start a third one by itself, or meet the second with the first's names.
    """
    import ray

    from pipeline.stages.runtime import ray_session

    if not ray.is_initialized():
        ray_sessions.enter_context(ray_session(num_cpus=4))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion directory with random weights that draws 16x16 images in milliseconds."""
    from tests.tiny_models import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def tmp_root(tmp_path: Path) -> str:
    """A storage root that is not there yet, as `--root` takes it."""
    return str(tmp_path / "runs")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty storage root."""
    return Store.open(str(tmp_path))


@pytest.fixture(scope="session")
def s3_root(isolated_environment: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URI of a bucket on a real S3 server; the environment holds address and credentials, as a user's would."""
    from tests.s3_server import running_s3_server

    patch = pytest.MonkeyPatch()
    with running_s3_server(tmp_path_factory.mktemp("s3"), "synthclones-test") as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield "s3://synthclones-test"
    patch.undo()


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium to look at pages with. Without one the test is skipped, in CI (`CI=true`) it fails."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    reason = "no chromium, chromium-browser or google-chrome in PATH; install one (Debian: apt-get install chromium)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class CommandResult:
    """What a command left: exit code, stdout, stderr."""

    command: str
    code: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        return f"{self.command} -> exit {self.code}\n--- stdout\n{self.stdout}\n--- stderr\n{self.stderr}"

    @property
    def json(self) -> dict[str, Any]:
        """The object that `--json` puts on the last line of stdout."""
        value: dict[str, Any] = json.loads(self.stdout.splitlines()[-1])
        return value

    def check_ok(self) -> CommandResult:
        """The command ended with exit code 0."""
        assert self.code == 0, str(self)
        return self

    def check_error(self, code: int, *parts: str) -> CommandResult:
        """The command ended with `code`; stderr's last line is one `error: …` line with every part, no traceback."""
        assert self.code == code, str(self)
        assert "Traceback" not in self.stdout + self.stderr, str(self)
        lines = [line for line in self.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.stderr.rstrip().endswith(lines[0]), str(self)
        for part in parts:
            assert part in lines[0], f"{part!r} is not in {lines[0]!r}"
        return self


def run_pytest(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest on the tests of a folder that may import this repository's."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", *words, f"--rootdir={folder}", "-o", f"pythonpath={REPOSITORY}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


Cli = Callable[..., CommandResult]


@pytest.fixture
def cli() -> Cli:
    """Run `python -m MODULE ARGS…` as a user does, from the repository: `cli("jobs.generate", "--preset", "fashion")`.

    Keyword arguments: `env`, variables laid over the test's own (None removes one); `timeout_s`, default 540.
    """

    def run(
        module: str, *arguments: str, env: dict[str, str | None] | None = None, timeout_s: float = 540
    ) -> CommandResult:
        merged = {**os.environ, **(env or {})}
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env={name: value for name, value in merged.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        return CommandResult(" ".join(command[1:]), done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A command in this process, `run("generate", …)` or `run("tune.scaling", …)`: (exit code, stdout, stderr)."""
    from pipeline.cli import run_job

    def call(module: str, *words: str) -> tuple[int, str, str]:
        name = module if "." in module else f"jobs.{module}"
        monkeypatch.setattr("sys.argv", [name, *words])
        with pytest.raises(SystemExit) as caught:
            run_job(importlib.import_module(name).main)
        assert isinstance(caught.value.code, int)
        out, err = capfd.readouterr()
        return caught.value.code, without_forwarded(out), without_forwarded(err)

    return call


def without_forwarded(text: str) -> str:
    """Less what Ray's processes print: it is forwarded to this one by and by, so an earlier test's may come now."""
    return "".join(line for line in text.splitlines(keepends=True) if not FORWARDED.match(line))


@pytest.fixture
def here(run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """As `cli`, but in this process, which saves seconds of imports: for commands that leave nothing behind in it."""

    def call(module: str, *words: object, env: dict[str, str | None] | None = None) -> CommandResult:
        with monkeypatch.context() as patch:
            patch.chdir(REPOSITORY)
            for name, value in (env or {}).items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            code, out, err = run(module, *map(str, words))
        return CommandResult(f"{module} {' '.join(map(str, words))}", code, out, err)

    return call


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of noise for each Fashion-MNIST class, in folders by WNID."""
    from tests.image_sets import write_noise

    return write_noise(tmp_path_factory.mktemp("noise"))


SaveModel = Callable[..., str]


@pytest.fixture(scope="session")
def save_model() -> SaveModel:
    """Write a Fashion-MNIST model as jobs.train leaves it, with random weights: `save_model(store, "real", seed=1)`.

    Returns its directory. Keyword arguments lie over the manifest's identity.
    """
    from pipeline.core.classes import load_class_table
    from pipeline.core.classifier import build_classifier, weights_to_bytes
    from pipeline.core.train_config import TrainConfig

    classes = load_class_table("fashion_mnist")

    def save(store: Store, data: str, seed: int = 0, **identity: Any) -> str:
        directory = f"models/{data[:2]}{seed:014x}"
        train = TrainConfig.model_validate({"data": data, "seed": seed, "input_size": 32})
        names = {"class_names": classes.names, "wnids": classes.wnids}
        store.write_json(f"{directory}/config.json", {"train": train.model_dump(mode="json"), **names})
        store.write_bytes(f"{directory}/model.safetensors", weights_to_bytes(build_classifier(train, len(classes))))
        lines = [json.dumps({"epoch": e, "loss": 1 / e, "accuracy": 0.1 * e}) for e in (1, 2)]
        store.write_bytes(f"{directory}/metrics.jsonl", "\n".join(lines).encode())
        source = {"image_set": "ab" * 32} if data == "synthetic" else {"real": "fashion_mnist"}
        whole = {"data": source, "images_per_class": 3, "classes": classes.hash, "train": {"seed": seed}, **identity}
        store.write_json(
            f"{directory}/manifest.json", {"identity": whole, "num_images": 29, "seconds": 62.0, "images_per_s": 199.5}
        )
        return directory

    return save

"""Jobs and tune commands, sent to a real cluster by Ray's jobs API: exit code 0, a summary, no traceback.

The chain always, every one of them with `-m slow`. What a job does is tested beside it; here it only has to work where
it is sent to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from pipeline.core.artifact import Store
from pipeline.core.config_loading import load_config
from tests.cluster_head import ClusterHead
from tests.conftest import REPOSITORY, SaveModel
from tests.finished_trainings import finish_grid
from tests.image_sets import write_image_set
from tests.tiny_sets import SPACE, training_options

pytestmark = pytest.mark.timeout(2400)
Job = tuple[list[str], str]
"""Its words, and what its summary says."""

TEMPLATE, GRID = "c, d_c", (4, 8, 32)
"""Recipe and images per class of the trainings that a scaling law and a growth are fitted to."""
STUDY = f"""
seeds: [0]
twins: false
base: ["recipe.template={TEMPLATE}"]
axes:
  images: {{"{GRID[0]}": [images_per_class={GRID[0]}]}}
"""
"""Of one of those trainings."""
EVERY_JOB = {
    f"{package}.{path.stem}"
    for package in ("jobs", "tune")
    for path in (REPOSITORY / package).glob("*.py")
    if path.stem != "__init__"
}
CHAIN = {
    "jobs.build_prompts", "jobs.generate", "jobs.verify", "jobs.train", "jobs.evaluate", "jobs.register", "jobs.study",
    "jobs.demo", "tune.sweep", "tune.promote",
}  # fmt: skip
"""From class names to a chosen model. The others look at what these made, and took eight more minutes of each run."""
WHICH = [pytest.param(CHAIN, id="the chain"), pytest.param(EVERY_JOB, id="every job", marks=pytest.mark.slow)]
ENDED = re.compile(r"Exception ignored in:.{0,1500}?sigterm_handler", re.DOTALL)
"""What Python says when Ray ends a worker (a finished trial's) while an object of it is being deleted."""
RAY_TRAINS_OWN = re.compile(r"\((PlacementGroupCleaner|PreemptionWatcher) ")
"""Lines of its actors: one looks for its Ray by what runs on this machine, where other tests run theirs; one may ask
before it has joined its Ray, and says so with a traceback."""
TINY_GENERATOR = (
    "text.hidden_size=16", "text.num_layers=1", "vae.block_out_channels=[8,8,8]", "vae.norm_num_groups=4",
    "vae.num_steps=2", "unet.block_out_channels=[8,8,16]", "unet.norm_num_groups=4", "unet.num_steps=2",
)  # fmt: skip


class Place:
    """A root with two models, and the words that every job of it takes."""

    def __init__(self, folder: Path, model: Path, noise: Path, save_model: SaveModel) -> None:
        self.root, self.folder = folder / "runs", folder
        self.store = Store.open(str(self.root))
        self.models = [save_model(self.store, "synthetic", seed).removeprefix("models/") for seed in (0, 1)]
        (folder / "study.yaml").write_text(STUDY)
        (folder / "space.yaml").write_text(SPACE)
        self.config = [*training_options(self.root, model), "--set", f"evaluate.test_set={noise}"]
        self.config += ["--set", "train.mixed_precision=none", "--set", "train.input_size=16"]
        self.quiet = [*self.config, "--set", "tracking.enabled=false"]
        self.longer = [*self.quiet, "--set", "train.epochs=4"]
        self.grid = [*self.longer, "--recipe", TEMPLATE, "--seeds", "2"]
        self.grid += [word for size in GRID for word in ("--size", str(size))]

    def finish_grid(self) -> None:
        """The trainings of the scaling law, on real pictures: nothing is learnt from a random model's."""
        values = [word for word in self.grid if "=" in word]
        config = load_config("fashion", overrides=[*values, f"recipe.template={TEMPLATE}"])
        write_image_set(config.model_copy(update={"images_per_class": GRID[-1]}), self.store)
        finish_grid(config, TEMPLATE, GRID, self.store)

    def first(self) -> dict[str, Job]:
        """Jobs that take seconds and need nothing of the others."""
        models, quiet = self.models, self.quiet
        plain = ["--root", str(self.root)]
        return {
            "jobs.fetch_data": (["fashion-mnist"], "fashion-mnist: "),
            "jobs.build_classes": (["--name", "shoes", "--class", "sandal", *plain], "shoes.parquet"),
            "jobs.check_prompts": (quiet, "prompts"),
            "jobs.plan": ([*quiet, "--images-per-s", "10"], "images"),
            "jobs.build_prompts": (quiet, "40 "),
            "jobs.generate": (quiet, "40 images in"),
            "jobs.compare": ([*quiet, *models], "McNemar"),
            "jobs.evaluate": ([*quiet, "--model", models[0]], "report: "),
            "jobs.submit": (["--dry-run", "--", "python", "-m", "jobs.demo"], "command: python -m jobs.demo"),
        }

    def second(self) -> dict[str, Job]:
        """Jobs that take seconds and need the set that `jobs.generate` made."""
        quiet = self.quiet
        return {
            "jobs.verify": (quiet, "40 "),
            "jobs.gallery": (quiet, "index.html"),
            "jobs.audit": (quiet, "40 images: "),
            "jobs.regenerate": ([*quiet, "--image-id", "0"], "0"),
            "jobs.preview": ([*quiet, "--num-classes", "1", "--num-images-per-class", "1"], "preview.html"),
            "jobs.train": (self.config, "accuracy"),
        }

    def third(self) -> dict[str, Job]:
        """What follows a training that MLflow knows."""
        return {"jobs.register": ([*self.config, "--alias", "best"], "best")}

    def finished(self) -> dict[str, Job]:
        """What looks at trainings that are there, and a generator so small that it is trained in seconds."""
        study = ["--study", f"{self.folder}/study.yaml"]
        generator = [word for setting in TINY_GENERATOR for word in ("--set", setting)]
        return {
            "jobs.analyze": ([*self.quiet, "--model", self.models[0]], "metrics: "),
            "jobs.study": ([*self.longer, *study], "table.md"),
            "jobs.train_generator": (
                ["--work", f"{self.folder}/work", "--out", f"{self.folder}/out", *generator],
                f"{self.folder}/out",
            ),
            "tune.scaling": ([*self.grid, "--no-twins"], "studies/scaling-default"),
            "tune.grow": ([*self.grid, "--images", "60", "--validation-images", "20"], "growth.csv"),
        }

    def heavy(self) -> dict[str, Job]:
        """Jobs that take minutes here, the last of them on what the one before it found."""
        quiet, bench = self.quiet, "stage_over_bare_loop"
        cheap = ("transfer.num_trials=1", "transfer.probe_seeds=[0]", "transfer.lbfgs_max_iterations=20")
        few = [word for setting in cheap for word in ("--set", setting)]
        return {
            "jobs.transfer": ([*quiet, *few, "--model", self.models[0], "--dataset", "digits"], "numbers: "),
            "jobs.bench": (["generate", *quiet, "--repeats", "1", "--only", bench], bench),
            "jobs.demo": (quiet[2:], "top-1"),  # it has a preset of its own
            "tune.sweep": ([*quiet, "--space", f"{self.folder}/space.yaml"], "result.json"),
            "tune.promote": ([*quiet, "--sweep", "space", "--seeds", "1"], "best.yaml"),
        }


@pytest.fixture(scope="module")
def head(isolated_environment: None) -> Iterator[ClusterHead]:
    started = ClusterHead(4)  # of which the jobs themselves take none
    yield started
    started.close()


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, noise_folder: Path, save_model: SaveModel
) -> Place:
    return Place(tmp_path_factory.mktemp("every"), tiny_model, noise_folder, save_model)


def run_all(head: ClusterHead, jobs: Mapping[str, Job], names: Collection[str], at_once: int = 2) -> None:
    """Send those of these names, so many at a time, and look at each."""
    token = Path(head.client_environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    client = JobSubmissionClient(head.address, headers={"Authorization": f"Bearer {token}"})
    environment = {"working_dir": str(REPOSITORY), "env_vars": {"HF_HUB_OFFLINE": "1", "MLFLOW_DISABLE_TELEMETRY": "1"}}

    def end(name: str) -> str:
        """What is wrong with it; nothing when all is right."""
        words, says = jobs[name]
        line = " ".join(f"'{word}'" for word in ("python", "-m", name, *words))
        began_s = time.monotonic()
        job_id = client.submit_job(entrypoint=line, runtime_env=environment, entrypoint_num_cpus=0)
        while not (info := client.get_job_info(job_id)).status.is_terminal():
            time.sleep(0.5)
        print(f"{name}: {time.monotonic() - began_s:.0f} s", flush=True)
        lines = [line for line in client.get_job_logs(job_id).splitlines() if not RAY_TRAINS_OWN.search(line)]
        log = ENDED.sub("", "\n".join(lines))
        if info.status == JobStatus.SUCCEEDED and info.driver_exit_code == 0 and says in log and "Traceback" not in log:
            return ""
        return f"{name}: {info.status}, exit code {info.driver_exit_code}\n{log[-3000:]}"

    with ThreadPoolExecutor(at_once) as senders:
        wrong = [found for found in senders.map(end, [name for name in jobs if name in names]) if found]
    assert not wrong, "\n".join(wrong)


def test_the_list_is_whole(place: Place) -> None:
    """A new job has to be added here."""
    assert CHAIN < EVERY_JOB
    assert {*place.first(), *place.second(), *place.third(), *place.finished(), *place.heavy()} == EVERY_JOB


@pytest.mark.parametrize("names", WHICH)
def test_light_jobs(head: ClusterHead, place: Place, names: Collection[str]) -> None:
    run_all(head, place.first(), names)
    run_all(head, place.second(), names)
    run_all(head, place.third(), names)


@pytest.mark.parametrize("names", WHICH)
def test_jobs_on_finished_trainings(head: ClusterHead, place: Place, names: Collection[str]) -> None:
    if "tune.scaling" in names:  # the study of one training, alone, makes it itself
        place.finish_grid()
    run_all(head, place.finished(), names)


@pytest.mark.parametrize("names", WHICH)
def test_heavy_jobs(head: ClusterHead, place: Place, names: Collection[str]) -> None:
    run_all(head, place.heavy(), names, at_once=1)  # two, beside the other lane's tests, were too much for two cores

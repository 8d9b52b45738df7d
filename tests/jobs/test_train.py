"""`python -m jobs.train`, as a user runs it."""

from __future__ import annotations

from tests.conftest import Cli
from tests.image_sets import NO_MODEL

MODEL = ("--set", f"recipe.model.id={NO_MODEL['id']}", "--set", f"recipe.model.revision={NO_MODEL['revision']}")


def test_a_missing_image_set_names_the_job_that_makes_it(here: Cli, tmp_root: str) -> None:
    result = here("jobs.train", "--preset", "fashion", "--root", tmp_root, *MODEL)
    result.check_error(2, "images/", "run `python -m jobs.generate` with the same settings first")


def test_a_batch_that_workers_cannot_share_is_refused(here: Cli, tmp_root: str) -> None:
    arguments = ("--set", "train.data=real", "--set", "train.num_workers=3", *MODEL)
    here("jobs.train", "--preset", "fashion", "--root", tmp_root, *arguments).check_error(
        2, "train.batch_size 64", "3 workers", "nearest 63"
    )


def test_help_does_not_import_torch_or_ray(cli: Cli) -> None:
    result = cli("jobs.train", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"}).check_ok()
    assert "--images-per-class" in result.stdout
    imported = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if "import time:" in line}
    assert "click" in imported
    assert not imported & {"torch", "ray", "mlflow"}

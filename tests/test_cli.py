from __future__ import annotations

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pipeline.cli import FiniteRange, JobContext, job_options, job_options_with, run_job
from pipeline.core.errors import InputError, WorkError
from tests.conftest import REPOSITORY


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, body: Any, *arguments: str
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a job whose body is `body`."""
    command = click.command()(job_options(body))
    monkeypatch.setattr("sys.argv", ["job", *arguments])
    with pytest.raises(SystemExit) as caught:
        run_job(command)
    out, err = capsys.readouterr()
    code = caught.value.code
    assert isinstance(code, int)
    return code, out, err


def report_epochs(job: JobContext) -> None:
    job.finish(f"{job.config.train.epochs} epochs under {job.store.root}", {"epochs": job.config.train.epochs})


def test_json_is_the_last_line_after_the_human_summary(capsys, monkeypatch, tmp_path) -> None:
    arguments = ["--preset", "fashion", "--set", "train.epochs=7", "--root", str(tmp_path), "--json"]
    code, out, err = run(capsys, monkeypatch, report_epochs, *arguments)
    human, machine = out.splitlines()
    assert (code, err) == (0, "")
    assert human == f"7 epochs under {tmp_path}" and json.loads(machine) == {"epochs": 7}


def test_without_json_only_people_are_told(capsys, monkeypatch) -> None:
    code, out, _ = run(capsys, monkeypatch, report_epochs, "--preset", "fashion")
    assert code == 0 and len(out.splitlines()) == 1 and "{" not in out


def test_images_per_class_wins_over_set(capsys, monkeypatch) -> None:
    def count(job: JobContext) -> None:
        click.echo(job.config.images_per_class)

    arguments = ["--preset", "fashion", "--images-per-class", "3", "--set", "images_per_class=4"]
    assert run(capsys, monkeypatch, count, *arguments)[1] == "3\n"


def test_dry_run_prints_a_config_that_can_be_run_again_and_does_nothing(capsys, monkeypatch, tmp_path: Path) -> None:
    def never(job: JobContext) -> None:
        raise AssertionError("the body ran")

    root = str(tmp_path / "new")
    code, out, _ = run(
        capsys, monkeypatch, never, "--preset", "fashion", "--set", "train.epochs=7", "--dry-run", "--root", root
    )
    (tmp_path / "printed.yaml").write_text(out)
    assert code == 0 and yaml.safe_load(out)["train"]["epochs"] == 7 and not Path(root).exists()
    assert run(capsys, monkeypatch, report_epochs, "--config", str(tmp_path / "printed.yaml"))[1].startswith("7 epochs")


@pytest.mark.parametrize(
    ("raised", "code", "says"),
    [
        (InputError("a\nb   c"), 2, "error: a b c"),
        (WorkError("half-way"), 1, "error: half-way"),
        (KeyboardInterrupt(), 1, "error: interrupted; what is done is kept"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x"), 1, "error: /x: No space left on device"),
        (OverflowError("int too large"), 2, "error: a number is too large to compute with (int too large)"),
        (OSError(errno.ENAMETOOLONG, "", "x" * 999), 2, f"error: '{'x' * 80}' and so on is too long for a file's name"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/x"), 1, "error: /x: Permission denied"),
    ],
)
def test_an_error_becomes_one_line_and_a_code(capsys, monkeypatch, raised: BaseException, code: int, says: str) -> None:
    def fail(job: JobContext) -> None:
        raise raised

    found, out, err = run(capsys, monkeypatch, fail, "--preset", "fashion")
    line = err.lstrip("\n")  # click ends the line of a ^C first
    assert found == code and out == "" and line.startswith(says) and line.count("\n") == 1


def test_a_full_disk_under_stdout_is_one_line_too() -> None:
    """Python writes what is left in its buffer once more when it ends, and would say so, with exit code 120."""
    code = "import click, pipeline.cli as cli; cli.run_job(click.command()(lambda: click.echo('done')))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-c", code]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: storage: No space left on device")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(job: JobContext) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("sys.argv", ["job", "--preset", "fashion"])
    with pytest.raises(KeyError):
        run_job(click.command()(job_options(bug)))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give --preset NAME (fashion"),
        (["--preset", "fashoin"], "did you mean 'fashion'?"),
        (["--presett", "fashion"], "did you mean '--preset'?"),
        (["--preset"], "requires an argument"),
        (["--preset", "fashion", "extra"], "extra"),
        (["--preset", "fashion", "--images-per-class", "many"], "'many' is not a valid integer"),
        (["--preset", "fashion", "--images-per-class", "0"], "images_per_class"),
        (["--preset", "fashion", "--root", "r\udcff"], "'r\\udcff' is not UTF-8 text; mend its encoding"),
    ],
)
def test_wrong_options_are_one_line_and_code_2(capsys, monkeypatch, arguments: list[str], says: str) -> None:
    code, out, err = run(capsys, monkeypatch, report_epochs, *arguments)
    assert code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_of_a_range_is_one_that_can_be_computed_with(value: str) -> None:
    with pytest.raises(click.BadParameter, match="no number to compute with"):
        FiniteRange(min=0).convert(value, None, None)


def test_help_names_every_shared_option(capsys, monkeypatch) -> None:
    code, out, _ = run(capsys, monkeypatch, report_epochs, "--help")
    assert code == 0
    for option in ("--preset", "--config", "--set", "--images-per-class", "--root", "--dry-run", "--json"):
        assert option in out


def test_a_job_may_have_a_preset_and_a_root_of_its_own(capsys, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["job"])
    with pytest.raises(SystemExit):
        run_job(click.command()(job_options_with("fashion", "runs/own")(report_epochs)))
    assert capsys.readouterr().out.endswith(f"under {tmp_path}/runs/own\n")


@pytest.mark.parametrize("word", ["recipe.template={{ d }}", "classes=nope"])
@pytest.mark.parametrize("module", ["build_prompts", "generate", "preview", "demo"])
def test_a_dry_run_refuses_a_recipe_that_the_run_would_refuse(capsys, monkeypatch, module: str, word: str) -> None:
    monkeypatch.setattr("sys.argv", ["job", "--preset", "fashion", "--set", word, "--dry-run"])
    with pytest.raises(SystemExit) as caught:
        run_job(importlib.import_module(f"jobs.{module}").main)
    out, err = capsys.readouterr()
    assert caught.value.code == 2 and out == "" and err.startswith("error: ")


def test_a_planning_job_is_told_of_a_dry_run(capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["job", "--dry-run"])
    with pytest.raises(SystemExit):
        run_job(click.command()(job_options_with("fashion", plans=True)(lambda job: click.echo(job.dry_run))))
    assert capsys.readouterr().out == "True\n"

"""What a training tells people."""

from __future__ import annotations

import pytest
import ray.exceptions

from pipeline.core.errors import InputError, OutageError, WorkError
from pipeline.stages.training_words import root_cause, tell_warm_up
from tests.image_sets import small_config


@pytest.mark.parametrize(("warmup_epochs", "lines"), [(1.5, 0), (2, 1)])
def test_a_warm_up_without_an_end_is_told(warmup_epochs: float, lines: int, caplog: pytest.LogCaptureFixture) -> None:
    tell_warm_up(small_config(epochs=2, warmup_epochs=warmup_epochs).train)
    assert len([line for line in caplog.messages if "the warm-up takes 2 epochs and the training 2" in line]) == lines


def test_root_cause_is_the_work_error_among_what_it_broke_in_other_workers() -> None:
    error = RuntimeError("wrapped")
    failures = {0: RuntimeError("Connection closed by peer"), 1: WorkError("cannot read /x: closed; mend it")}
    error.worker_failures = failures  # type: ignore[attr-defined]
    assert root_cause(error) == "cannot read /x: closed; mend it"


def test_root_cause_is_one_line_of_the_workers_own_error() -> None:
    error = RuntimeError("wrapped")
    error.worker_failures = {1: ValueError("Traceback\n  File x\nOSError: disk is full\n")}  # type: ignore[attr-defined]
    assert root_cause(error).startswith("OSError: disk is full; run the same command again")


@pytest.mark.parametrize("kind", [WorkError, OutageError, InputError])
def test_root_cause_names_no_class_of_ours(kind: type[Exception]) -> None:
    """Ray's error of a task is one of the kind that it wraps, with a traceback as its text."""
    text = f"Traceback\n{kind.__module__}.{kind.__name__}: gone; mend it"
    error = RuntimeError("wrapped")
    wrapped = ray.exceptions.RayTaskError("f", text, kind("gone; mend it")).as_instanceof_cause()
    error.worker_failures = {0: wrapped}  # type: ignore[attr-defined]
    assert root_cause(error) == "gone; mend it"

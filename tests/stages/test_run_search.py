"""Runs in the experiments of sweeps and studies, and how they are found from the outside. A real database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.errors import InputError
from pipeline.stages.run_handle import RunHandle, mlflow_client
from pipeline.stages.run_search import find_run, model_of_run
from pipeline.stages.tracking import end_run, tracked_run

CONFIG = RunConfig(tracking=TrackingConfig(experiment="fashion"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(str(tmp_path_factory.mktemp("runs")))


def fetch(run: RunHandle) -> Any:
    return mlflow_client(str(run.uri)).get_run(run.run_id)


def experiment(run: RunHandle) -> str:
    client = mlflow_client(str(run.uri))
    name: str = client.get_experiment(fetch(run).info.experiment_id).name
    return name


def test_a_sweep_and_its_trainings_have_an_experiment_with_links_to_images_in_the_other(store: Store) -> None:
    with tracked_run(CONFIG, store, "sweep", "s", {}, {}, folder="sweeps/small") as sweep:
        with tracked_run(CONFIG, store, "generate", "i", {}, {}) as images:
            pass
        parents = {"generate": "i"}
        with tracked_run(CONFIG, store, "train", "t1", {}, parents, parent_run=sweep.run_id) as training:
            pass
    assert [experiment(run) for run in (sweep, training, images)] == ["fashion/sweeps/small"] * 2 + ["fashion"]
    tags = fetch(training).data.tags
    assert tags["mlflow.parentRunId"] == sweep.run_id and tags["synthclones.parent.generate"] == images.run_id
    place = f"#/experiments/{fetch(images).info.experiment_id}/runs/{images.run_id}"
    assert place in tags["mlflow.note.content"]
    with tracked_run(CONFIG, store, "sweep", "s", {}, {}, folder="sweeps/small") as again:
        assert again.run_id == sweep.run_id
    # From outside, as jobs.register, jobs.compare and a report ask.
    assert find_run(CONFIG, store, "train", "t1").info.run_id == training.run_id
    assert model_of_run(CONFIG, store, str(training.run_id)) == "models/t1"
    with tracked_run(CONFIG, store, "evaluate", "e", {}, {"train": ["t1"]}) as report:
        pass
    assert fetch(report).data.tags["synthclones.parent.train"] == training.run_id


def test_one_training_of_two_sweeps_is_a_run_in_each_and_one_model(store: Store) -> None:
    trained = []
    for name in ("one", "two"):
        with tracked_run(CONFIG, store, "sweep", name, {}, {}, folder=f"sweeps/{name}") as sweep:
            with tracked_run(CONFIG, store, "train", "shared-0", {}, {}, parent_run=sweep.run_id) as training:
                trained.append(training)
            mlflow_client(str(sweep.uri)).update_run(training.run_id, status="RUNNING")
            end_run(CONFIG, store, "train", "shared-0", "FAILED", sweep.run_id)
            assert fetch(training).info.status == "FAILED"
    assert trained[0].run_id != trained[1].run_id
    assert model_of_run(CONFIG, store, "train-shared-0") == "models/shared-0"


def test_all_may_stay_in_one_experiment(store: Store) -> None:
    config = RunConfig(tracking=TrackingConfig(experiment="mine", experiment_per_study=False))
    with tracked_run(config, store, "study", "s", {}, {}, folder="studies/small") as study:
        pass
    assert experiment(study) == "mine"


def test_a_neighbour_of_a_like_name_is_no_family(store: Store) -> None:
    with tracked_run(RunConfig(tracking=TrackingConfig(experiment="fashion2")), store, "train", "far", {}, {}):
        pass
    assert find_run(CONFIG, store, "train", "far") is None
    with pytest.raises(InputError, match="has no training"):
        model_of_run(CONFIG, store, "train-far")


def test_a_part_of_a_sweep_whose_run_is_away_goes_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with tracked_run(CONFIG, store, "train", "orphan", {}, {}, parent_run="0" * 32) as run:
        assert run.run_id is None
    assert "train orphan is not in MLflow" in caplog.text


def test_without_a_database_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training"):
        model_of_run(CONFIG, Store.open(str(tmp_path)), "train-x")
    assert list(tmp_path.iterdir()) == []

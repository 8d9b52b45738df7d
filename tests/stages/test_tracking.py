import json
import math
import pickle
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.errors import InputError
from pipeline.core.tracking_uri import tracking_uri
from pipeline.stages.run_handle import RunHandle, _is_refusal, mlflow_client
from pipeline.stages.tracking import end_run, tracked_run
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One root for the module, since a new database costs seconds; each test has an artifact id of its own."""
    return Store.open(str(tmp_path_factory.mktemp("a root with 100%25 # é")))


@pytest.fixture(autouse=True)
def no_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def start(store: Store, artifact_id: str, job: str = "train", params=None, parents=None, config=RunConfig()):
    return tracked_run(config, store, job, artifact_id, params or {}, parents or {})


def fetch(run: RunHandle):
    return mlflow_client(run.uri).get_run(run.run_id)


def steps(run: RunHandle, name: str) -> list[tuple[int, float]]:
    return [(p.step, p.value) for p in mlflow_client(run.uri).get_metric_history(run.run_id, name)]


def test_default_database_lies_in_the_root(store: Store):
    with start(store, "place") as run:
        run.log_artifact("plots/a.txt", "text")
    assert (Path(store.root) / "mlflow.db").is_file()
    files = list((Path(store.root) / "mlartifacts").rglob("plots/a.txt"))
    assert [f.read_text() for f in files] == ["text"]


def test_parameters_are_flat_and_clipped(store: Store):
    long = "x" * 20_000
    with start(store, "params", params={"a": {"b": 1, "c": {"d": None}}, "long": long, "bad|name": 1}) as run:
        pass
    params = fetch(run).data.params
    assert params == {"a.b": "1", "a.c.d": "None", "long": long[:6000], "bad_name": "1"}


def test_more_parameters_than_one_request_takes(store: Store):
    with start(store, "many", params={f"p{i}": i for i in range(250)}) as run:
        pass
    assert len(fetch(run).data.params) == 250


def test_resume_is_the_same_run_and_adds_only_new_points(store: Store):
    with start(store, "resume", params={"workers": 1}) as first:
        for epoch in range(3):
            first.log_metrics({"loss": 3.0 - epoch}, epoch)
    with start(store, "resume", params={"workers": 2, "new": 1}) as second:
        assert fetch(second).info.status == "RUNNING"
        for epoch in range(1, 5):
            second.log_metrics({"loss": 9.0}, epoch)
    assert second.run_id == first.run_id
    assert fetch(second).data.params == {"workers": "1", "new": "1"}
    assert steps(second, "loss") == [(0, 3.0), (1, 2.0), (2, 1.0), (3, 9.0), (4, 9.0)]


def test_another_artifact_job_or_root_is_another_run(store: Store, tmp_path: Path):
    uri = tracking_uri(TrackingConfig(), store)
    config = RunConfig(tracking=TrackingConfig(uri=uri))
    ids = set()
    for root, job, artifact in ((store, "train", "x"), (store, "train", "y"), (store, "generate", "x")):
        with start(root, artifact, job, config=config) as run:
            ids.add(run.run_id)
    with start(Store.open(str(tmp_path)), "x", config=config) as run:
        ids.add(run.run_id)
    assert len(ids) == 4


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")]
)
def test_status_says_how_it_ended(store: Store, error: type[BaseException], status: str):
    with pytest.raises(error), start(store, f"status-{status}") as run:
        raise error
    assert fetch(run).info.status == status
    with start(store, f"status-{status}") as run:
        pass
    assert fetch(run).info.status == "FINISHED"


def test_values_that_are_not_finite_are_left_out(store: Store):
    with start(store, "finite") as run:
        run.log_metrics({"a": math.nan, "b": math.inf, "c": 1.5}, 0)
    assert fetch(run).data.metrics == {"c": 1.5}


def test_a_model_run_names_the_image_set_run_it_read(store: Store):
    with start(store, "images-1", job="generate") as parent:
        pass
    with start(store, "model-1", parents={"generate": "images-1", "data": ["none", "of these"]}) as child:
        pass
    tags = fetch(child).data.tags
    assert tags["synthclones.parent.generate"] == parent.run_id
    assert tags["synthclones.parent.generate.artifact_id"] == "images-1"
    assert tags["synthclones.parent.data"] == ""
    assert parent.run_id in tags["mlflow.note.content"]


def test_a_worker_logs_through_a_pickled_handle(store: Store):
    with start(store, "pickle") as run:
        worker = pickle.loads(pickle.dumps(run.handle()))
        worker.log_metrics({"loss": 1.0}, 0)
        run.log_metrics({"loss": 5.0}, 0)
    assert steps(run, "loss") == [(0, 1.0)]


def test_a_worker_on_another_node_makes_no_database(tmp_path: Path):
    worker = RunHandle(f"sqlite:///{tmp_path}/mlflow.db", "some")
    worker.log_metrics({"loss": 1.0}, 0)
    assert not worker.flush()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_stored_holds_up_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """An artifact place that only the server's own machine has."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow_client(uri)
    run = client.create_run(client.create_experiment("x", artifact_location="file:///proc/nowhere"))
    handle = RunHandle(uri, run.info.run_id)
    handle.log_metrics({"a": 1.0}, 0)
    handle.log_artifact("config.yaml", "x")
    handle.log_metrics({"b": 2.0}, 0)
    handle.set_tags({"t": "1"})
    handle.end("FINISHED")
    found = fetch(handle)
    assert (found.info.status, found.data.metrics) == ("FINISHED", {"a": 1.0, "b": 2.0})
    assert found.data.tags["t"] == "1"
    (line,) = [r.getMessage() for r in caplog.records if "config.yaml" in r.getMessage()]
    assert "/proc/nowhere" in line and "--serve-artifacts" in line


def test_disabled_tracking_writes_nothing_and_has_the_same_interface(tmp_path: Path):
    config = RunConfig(tracking=TrackingConfig(enabled=False))
    with start(Store.open(str(tmp_path)), "off", config=config) as run:
        run.log_metrics({"a": 1.0}, 0)
        run.log_artifact("a", b"")
        run.set_tags({"a": "b"})
        assert run.flush() and run.run_id is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "ftp://nothing", "sqlite:////proc/no/mlflow.db"])
def test_a_place_that_cannot_be_used_is_one_line_at_the_start(tmp_path: Path, uri: str):
    config = RunConfig(tracking=TrackingConfig(uri=uri))
    begin = time.monotonic()
    with (
        pytest.raises(InputError, match=r"tracking\.enabled=false") as caught,
        start(Store.open(str(tmp_path)), "a", config=config),
    ):
        pass
    assert uri in str(caught.value) and "\n" not in str(caught.value)
    assert time.monotonic() - begin < 30


def test_what_belongs_to_a_begun_job_goes_on_without_a_run(store: Store, caplog: pytest.LogCaptureFixture):
    """A trial that starts in an outage, a report inside a study: hours are paid for already."""
    away = RunConfig(tracking=TrackingConfig(uri="http://127.0.0.1:9"))
    with start(store, "parent") as parent:
        with start(store, "inside", config=away) as run:
            assert run.run_id is None
            run.log_metrics({"loss": 1.0}, 1)
        with tracked_run(RunConfig(), store, "train", "child", {}, {}, parent_run=parent.run_id) as child:
            pass
    assert fetch(child).data.tags["mlflow.parentRunId"] == parent.run_id
    with tracked_run(away, store, "train", "trial", {}, {}, parent_run=parent.run_id) as run:
        assert run.run_id is None
    assert "train trial is not in MLflow" in caplog.text
    with pytest.raises(InputError), start(store, "alone", config=away):
        pass


def test_a_part_of_a_job_on_another_node_begins_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pipeline.stages.tracking._is_part", True)
    with start(Store.open(str(tmp_path)), "part") as run:
        assert run.run_id is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_its_process_left_is_closed_and_no_other(store: Store):
    with start(store, "left") as run:
        pass
    for status in ("RUNNING", "FINISHED"):
        mlflow_client(run.uri).update_run(run.run_id, status=status)
        end_run(RunConfig(), store, "train", "left", "FAILED")
        assert fetch(run).info.status == ("FAILED" if status == "RUNNING" else status)
    end_run(RunConfig(), store, "train", "never was", "FAILED")


@pytest.mark.parametrize(
    ("code", "waits"), [(401, True), (403, True), (408, True), (429, True), (500, True), (400, False), (404, False)]
)
def test_what_speaks_of_the_moment_is_sent_again(code: int, waits: bool):
    from mlflow.exceptions import MlflowException
    from mlflow.utils.rest_utils import get_error_code

    assert _is_refusal(MlflowException("no", error_code=get_error_code(code))) != waits


def test_data_sets_that_were_read_stand_once_with_the_run(store: Store):
    for _ in range(2):
        with start(store, "data") as run:
            run.log_dataset("images/ab", "ab" * 32, "s3://bucket/images/ab", {"images": 7}, "training")
    (found,) = fetch(run).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("images/ab", "ab" * 18)
    assert "s3://bucket/images/ab" in found.dataset.source and json.loads(found.dataset.profile) == {"images": 7}
    assert [tag.value for tag in found.tags] == ["training"]


def test_tags_tell_the_code_that_ran(store: Store):
    with start(store, "code") as run:
        pass
    tags = fetch(run).data.tags
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["synthclones.version.ray"] == version("ray")

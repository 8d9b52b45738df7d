"""The only place that talks to MLflow: one run per job and artifact, the same on resume, never able to end the work.

A run is found by the tag `synthclones.key`, a hash of (job, artifact id, storage root). Only the driver and rank 0 of
the training write. While a server is away, points wait in memory and are sent when it answers again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.credentials import covered, covered_in
from pipeline.core.errors import InputError
from pipeline.core.flatten import flatten
from pipeline.core.identity import content_hash
from pipeline.core.outbox import one_line
from pipeline.core.tracking_uri import SQLITE, local_base, sqlite_path, tracking_uri
from pipeline.core.versions import installed_versions
from pipeline.stages.run_handle import MAX_VALUE_LENGTH, RunHandle, clean_name, mlflow_client
from pipeline.stages.run_search import Parents, experiment_of, family, find, find_run, links, run_key

MAX_BATCH = 100  # parameters of one MLflow request
logger = logging.getLogger(__name__)
_is_part = False
_is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)


@contextmanager
def tracked_run(
    config: RunConfig,
    store: Store,
    job: str,
    artifact_id: str,
    params: Mapping[str, Any],
    parents: Parents,
    *,
    parent_run: str | None = None,
    folder: str | None = None,
    optional: bool = False,
) -> Iterator[RunHandle]:
    """The MLflow run of one job on one artifact, the same one however often the job is resumed.

    Args:
        config: the run's config; its `tracking` part says where.
        store: the storage root.
        job: "generate", "train" or "evaluate".
        artifact_id: id of the artifact that the job makes.
        params: what decided the result; mappings become dotted names. Kept from the run's first start.
        parents: artifact id(s) that were read, by the job that made them, e.g. {"generate": recipe.id}.
        parent_run: MLflow run of a sweep or study that this one is shown under, in that one's experiment.
        folder: of a sweep or study, as `sweeps/NAME`: its run gets an experiment of its own, if the config wants that.
        optional: go on without a run, with a warning, where there would be an `InputError`. So does everything below
            a parent run, inside another `tracked_run` and in a process of `track_as_part`: what they belong to has
            begun and costs hours.

    Raises:
        InputError: the server or database cannot be used at the start. Later nothing is raised.
    """
    if not config.tracking.enabled:
        yield RunHandle(None, None)
        return
    optional = optional or parent_run is not None or _is_part or _is_inside.get()
    place = _Place(folder, parent_run)
    try:
        uri = tracking_uri(config.tracking, store)
        with _told(uri):
            run = _start(uri, config.tracking, store, job, artifact_id, flatten(params), parents, place)
    except InputError as error:
        if not optional:
            raise
        logger.warning("%s %s is not in MLflow: %s", job, artifact_id, error)
        run = RunHandle(None, None)
    if parent_run is not None:
        run.set_tags({"mlflow.parentRunId": parent_run})
    outside = _is_inside.set(True)
    try:
        yield run
    except (KeyboardInterrupt, SystemExit):
        run.end("KILLED")
        raise
    except BaseException:
        run.end("FAILED")
        raise
    finally:
        _is_inside.reset(outside)
    run.end("FINISHED")


@dataclass(frozen=True)
class _Place:
    """Where a run goes: below its parent's, else into the experiment of a folder, else into the config's."""

    folder: str | None
    parent_run: str | None

    def experiment_id(self, client: Any, uri: str, tracking: TrackingConfig, store: Store) -> str:
        """Id of the experiment, which is made where there is none."""
        if self.parent_run is not None:
            return experiment_of(client, self.parent_run)
        name = tracking.experiment
        if self.folder is not None and tracking.experiment_per_study:
            name += f"/{self.folder}"
        return _experiment_id(client, uri, name, store)


def track_as_part() -> None:
    """Called first by a process that does a part of another one's job: it makes no database and ends no work."""
    global _is_part  # noqa: PLW0603 - it is what the whole process is
    _is_part = True


def is_part() -> bool:
    """Whether this process does a part of another one's job."""
    return _is_part


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """What MLflow's clients raise becomes an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # they raise whatever requests, SQLAlchemy and boto raise
        why = covered_in(one_line(error), uri)
        raise InputError(
            f"MLflow at {covered(uri)!r} cannot be used: {why}; start the server, mend "
            "tracking.uri or MLFLOW_TRACKING_URI, or give --set tracking.enabled=false"
        ) from error


def _start(
    uri: str,
    tracking: TrackingConfig,
    store: Store,
    job: str,
    artifact_id: str,
    params: dict[str, Any],
    parents: Parents,
    place: _Place,
) -> RunHandle:
    if uri.startswith(SQLITE):
        if _is_part and not sqlite_path(uri).exists():
            raise FileNotFoundError(f"{sqlite_path(uri)} is not on this machine")
        sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
    elif "://" in uri and not _is_server(uri):
        _connect_once(uri)
    client = mlflow_client(uri)
    experiment_id = place.experiment_id(client, uri, tracking, store)
    key = run_key(job, artifact_id, store)
    found = find(client, [experiment_id], key)
    if found is None:
        tags = {
            "synthclones.key": key,
            "synthclones.job": job,
            "synthclones.artifact_id": artifact_id,
            "synthclones.root": store.root,
            "mlflow.source.name": f"python -m jobs.{job}",
            **_code(),
        }
        found = client.create_run(experiment_id, tags=tags, run_name=f"{job}-{artifact_id[:8]}")
    run_id = found.info.run_id
    client.update_run(run_id, status="RUNNING")  # also takes over a run that a killed driver left
    _log_params(client, run_id, {k: v for k, v in params.items() if k not in found.data.params})
    run = RunHandle(uri, run_id)
    if parents:
        run.set_tags(links(client, [experiment_id, *family(client, tracking.experiment)], store, parents))
    return run


def end_run(
    config: RunConfig, store: Store, job: str, artifact_id: str, status: str, parent_run: str | None = None
) -> None:
    """Close a run that its process could not close; one that is not there or closed is left alone. Never raises."""
    if not config.tracking.enabled:
        return
    try:
        found = find_run(config, store, job, artifact_id, parent_run)
    except Exception as error:  # noqa: BLE001 - whatever MLflow's clients raise; the work itself is done
        logger.warning("%s %s keeps its state in MLflow: %s", job, artifact_id, one_line(error))
        return
    if found is not None and found.info.status == "RUNNING":
        RunHandle(tracking_uri(config.tracking, store), found.info.run_id).end(status)


def _is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://", "databricks"))


def _connect_once(uri: str) -> None:
    """A wrong password is known in a second; MLflow itself would ask ten times, for minutes, before it says so."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    engine.connect().close()
    engine.dispose()


def _experiment_id(client: Any, uri: str, name: str, store: Store) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None if _is_server(uri) else (local_base(store) / "mlartifacts" / content_hash(name)[:8]).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another job of this moment made it
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"MLflow experiment {name!r} at {covered(uri)} is deleted; restore it or set tracking.experiment"
        )
    return str(found.experiment_id)


def _code() -> dict[str, str]:
    """Tags for the code that runs: libraries, and the commit where there is a checkout."""
    from mlflow.utils.git_utils import get_git_commit

    commit = get_git_commit(str(Path(__file__).parent))
    versions = installed_versions("torch", "torchvision", "diffusers", "ray")
    tags = {f"synthclones.version.{package}": found for package, found in versions.items()}
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def _log_params(client: Any, run_id: str, params: dict[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(clean_name(name), str(value)[:MAX_VALUE_LENGTH]) for name, value in params.items()]
    for start in range(0, len(entries), MAX_BATCH):
        client.log_batch(run_id, params=entries[start : start + MAX_BATCH])

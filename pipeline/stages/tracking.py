"""The only place that talks to MLflow: one run per job and artifact, the same on resume, never able to end the work.

A run is found by the tag `synthclones.key`, a hash of (job, artifact id, storage root). Only the driver and rank 0 of
the training write. While a server is away, points wait in memory and are sent when it answers again.
"""

from __future__ import annotations

import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.flatten import flatten
from pipeline.core.identity import content_hash
from pipeline.core.outbox import Outbox, one_line
from pipeline.core.tracking_uri import SQLITE, local_base, sqlite_path, tracking_uri

MAX_VALUE_LENGTH = 6000  # characters of a parameter's value that MLflow keeps
MAX_BATCH = 100  # parameters of one MLflow request

_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; the default of 120 with 7 retries stops a training for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the queue below is the retry
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would try to leave a closed network
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
Parents = Mapping[str, str | Sequence[str]]
logger = logging.getLogger(__name__)


@cache
def _client(uri: str) -> Any:
    """A client of this process. MLflow takes seconds to import, so jobs that fail early never pay for it."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _existing(uri: str) -> Any:
    """A client that makes no database: on another node, rank 0 must not begin one of its own beside the driver's."""
    if uri.startswith(SQLITE) and not sqlite_path(uri).exists():
        raise FileNotFoundError(f"{sqlite_path(uri)} is not on this machine")
    return _client(uri)


class RunHandle:
    """One MLflow run, or nothing at all when `uri` is None. Pickles as (uri, run_id), so rank 0 may log through it.

    Args:
        uri: tracking URI; None when tracking is off.
        run_id: MLflow's id; None when tracking is off.
    """

    def __init__(self, uri: str | None, run_id: str | None) -> None:
        self.uri = uri
        self.run_id = run_id
        self._outbox = Outbox(f"MLflow at {uri}", _is_refusal)
        self._steps: dict[str, set[int]] = {}

    def __reduce__(self) -> tuple[type[RunHandle], tuple[str | None, str | None]]:
        return RunHandle, (self.uri, self.run_id)

    def handle(self) -> RunHandle:
        """The same run for another process, with an empty queue."""
        return RunHandle(self.uri, self.run_id)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add one point to each curve; NaN and infinity are left out, a (name, step) that is there already stays.

        Args:
            metrics: value by name; names may hold letters, digits and `_-./: `.
            step: epochs done, or images done: a number that a resumed job counts on from.
        """
        finite = {_key(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
        now_ms = int(time.time() * 1000)  # when it happened, not when it is sent; makes a repeated request harmless
        if finite:
            self._send(partial(self._log_metrics, finite, step, now_ms))

    def log_artifact(self, name: str, content: str | bytes | Path) -> None:
        """Keep a file with the run.

        Args:
            name: a file name, or `folder/name`.
            content: text, bytes, or the path of a local file.
        """
        if self.uri is not None:
            data = content.read_bytes() if isinstance(content, Path) else content
            self._send(partial(self._log_artifact, name, data.encode() if isinstance(data, str) else data))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        self._send(partial(self._set_tags, {_key(name): str(value)[:MAX_VALUE_LENGTH] for name, value in tags.items()}))

    def flush(self) -> bool:
        """Send what waits. Returns whether all of it is sent; never raises."""
        return self._outbox.flush()

    def _send(self, operation: Callable[[Any], object]) -> None:
        if self.uri is not None:
            uri = self.uri
            self._outbox.put(lambda: operation(_existing(uri)))

    def _log_metrics(self, metrics: dict[str, float], step: int, timestamp_ms: int, client: Any) -> None:
        from mlflow.entities import Metric

        for name in metrics.keys() - self._steps.keys():
            self._steps[name] = {point.step for point in client.get_metric_history(self.run_id, name)}
        new = [Metric(n, v, timestamp_ms, step) for n, v in metrics.items() if step not in self._steps[n]]
        if new:
            client.log_batch(self.run_id, metrics=new)
            for metric in new:
                self._steps[metric.key].add(step)

    def _set_tags(self, tags: dict[str, str], client: Any) -> None:
        from mlflow.entities import RunTag

        client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def _log_artifact(self, name: str, data: bytes, client: Any) -> None:
        folder, _, base = name.rpartition("/")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / base
            path.write_bytes(data)
            client.log_artifact(self.run_id, str(path), folder or None)

    def _end(self, status: str) -> None:
        self._send(lambda client: client.set_terminated(self.run_id, status))
        if not self.flush():
            lost = "MLflow at %s is still away: %d entries of run %s are lost; run the job again to send them"
            logger.warning(lost, self.uri, len(self._outbox), self.run_id)


@contextmanager
def tracked_run(
    config: RunConfig,
    store: Store,
    job: str,
    artifact_id: str,
    params: Mapping[str, Any],
    parents: Parents,
) -> Iterator[RunHandle]:
    """The MLflow run of one job on one artifact, the same one however often the job is resumed.

    Args:
        config: the run's config; its `tracking` part says where.
        store: the storage root.
        job: "generate", "train" or "evaluate".
        artifact_id: id of the artifact that the job makes.
        params: what decided the result; mappings become dotted names. Kept from the run's first start.
        parents: artifact id(s) that were read, by the job that made them, e.g. {"generate": recipe.id}.

    Raises:
        InputError: the server or database cannot be used at the start. Later nothing is raised.
    """
    if not config.tracking.enabled:
        yield RunHandle(None, None)
        return
    uri = tracking_uri(config.tracking, store)
    try:
        run = _start(uri, config.tracking.experiment, store, job, artifact_id, flatten(params), parents)
    except InputError:
        raise
    except Exception as error:  # MLflow's clients raise whatever requests, SQLAlchemy and boto raise
        raise InputError(
            f"MLflow at {uri!r} cannot be used: {one_line(error)}; start the server, mend tracking.uri or "
            "MLFLOW_TRACKING_URI, or give --set tracking.enabled=false"
        ) from error
    try:
        yield run
    except (KeyboardInterrupt, SystemExit):
        run._end("KILLED")
        raise
    except BaseException:
        run._end("FAILED")
        raise
    run._end("FINISHED")


def _start(
    uri: str,
    experiment: str,
    store: Store,
    job: str,
    artifact_id: str,
    params: dict[str, Any],
    parents: Parents,
) -> RunHandle:
    if uri.startswith(SQLITE):
        sqlite_path(uri).parent.mkdir(parents=True, exist_ok=True)
    client = _client(uri)
    experiment_id = _experiment_id(client, uri, experiment, store)
    key = _run_key(job, artifact_id, store)
    found = _find(client, experiment_id, key)
    if found is None:
        tags = {
            "synthclones.key": key,
            "synthclones.job": job,
            "synthclones.artifact_id": artifact_id,
            "synthclones.root": store.root,
            "mlflow.source.name": f"python -m jobs.{job}",
        }
        found = client.create_run(experiment_id, tags=tags, run_name=f"{job}-{artifact_id[:8]}")
    run_id = found.info.run_id
    client.update_run(run_id, status="RUNNING")  # also takes over a run that a killed driver left
    _log_params(client, run_id, {k: v for k, v in params.items() if k not in found.data.params})
    run = RunHandle(uri, run_id)
    run.set_tags(_links(client, experiment_id, store, parents))
    return run


def _experiment_id(client: Any, uri: str, name: str, store: Store) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        remote = uri.startswith(("http://", "https://", "databricks"))
        location = None if remote else (local_base(store) / "mlartifacts" / content_hash(name)[:8]).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another job of this moment made it
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(f"MLflow experiment {name!r} at {uri} is deleted; restore it or set tracking.experiment")
    return str(found.experiment_id)


def _run_key(job: str, artifact_id: str, store: Store) -> str:
    return content_hash([job, artifact_id, store.root])[:32]


def _find(client: Any, experiment_id: str, key: str) -> Any:
    return next(iter(client.search_runs([experiment_id], f"tags.`synthclones.key` = '{key}'", max_results=1)), None)


def _log_params(client: Any, run_id: str, params: dict[str, Any]) -> None:
    from mlflow.entities import Param

    entries = [Param(_key(name), str(value)[:MAX_VALUE_LENGTH]) for name, value in params.items()]
    for start in range(0, len(entries), MAX_BATCH):
        client.log_batch(run_id, params=entries[start : start + MAX_BATCH])


def _links(client: Any, experiment_id: str, store: Store, parents: Parents) -> dict[str, str]:
    """Tags that name the parents' artifacts and, where those have one, their runs; and a description with links."""
    tags, lines = {}, []
    for job, given in parents.items():
        ids = [given] if isinstance(given, str) else list(given)
        runs = [found for i in ids if (found := _find(client, experiment_id, _run_key(job, i, store)))]
        tags[f"synthclones.parent.{job}.artifact_id"] = ",".join(ids)
        tags[f"synthclones.parent.{job}"] = ",".join(run.info.run_id for run in runs)
        lines += [f"* read [{run.info.run_name}](#/experiments/{experiment_id}/runs/{run.info.run_id})" for run in runs]
    return {**tags, "mlflow.note.content": "\n".join(lines)} if tags else {}


def _key(name: str) -> str:
    """A name that every MLflow server takes."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:250]


def _is_refusal(error: Exception) -> bool:
    """Whether a server answered and said no (asking again would be answered alike)."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and int(error.get_http_status_code()) < 500

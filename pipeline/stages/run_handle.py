"""One run of MLflow, as the jobs see it: points, files, tags and data sets that wait while a server is away."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipeline.core.credentials import covered
from pipeline.core.outbox import Outbox, one_line
from pipeline.core.tracking_uri import SQLITE, sqlite_path

MAX_VALUE_LENGTH = 6000  # characters of a parameter's value that MLflow keeps

_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds; the default of 120 with 7 retries stops a training for minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the queue below is the retry
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it would try to leave a closed network
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_STORAGE_HINT = (
    "Files go where the run's experiment says (the server's --default-artifact-root): give this machine that place and "
    "its credentials, or use an experiment of a server that takes files itself (--serve-artifacts)"
)
logger = logging.getLogger(__name__)


@cache
def mlflow_client(uri: str) -> Any:
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
    return mlflow_client(uri)


class RunHandle:
    """One MLflow run, or nothing at all when `uri` is None. Pickles as (uri, run_id), so rank 0 may log through it.

    Args:
        uri: tracking URI; None when tracking is off.
        run_id: MLflow's id; None when tracking is off.
    """

    def __init__(self, uri: str | None, run_id: str | None) -> None:
        self.uri = uri
        self.run_id = run_id
        receiver = f"MLflow at {covered(uri or '')}"
        self._outbox = Outbox(receiver, _is_refusal, is_there=self._is_there, hint=_STORAGE_HINT)
        self._steps: dict[str, set[int]] = {}

    def __reduce__(self) -> tuple[type[RunHandle], tuple[str | None, str | None]]:
        return RunHandle, (self.uri, self.run_id)

    def handle(self) -> RunHandle:
        """The same run for another process, with an empty queue."""
        return RunHandle(self.uri, self.run_id)

    def log_metrics(self, metrics: Mapping[str, float], step: int, at_s: float | None = None) -> None:
        """Add one point to each curve; NaN and infinity are left out, a (name, step) that is there already stays.

        Args:
            metrics: value by name; names may hold letters, digits and `_-./: `.
            step: epochs done, or images done: a number that a resumed job counts on from.
            at_s: when it happened, seconds since 1970; None: now.
        """
        finite = {clean_name(name): float(value) for name, value in metrics.items() if math.isfinite(value)}
        # When it happened, not when it is sent; makes a repeated request harmless.
        at_ms = int((time.time() if at_s is None else at_s) * 1000)
        if finite:
            self._send(partial(self._log_metrics, finite, step, at_ms))

    def log_artifact(self, name: str, content: str | bytes | Path) -> None:
        """Keep a file with the run.

        Args:
            name: a file name, or `folder/name`.
            content: text, bytes, or the path of a local file.
        """
        if self.uri is not None:
            data = content.read_bytes() if isinstance(content, Path) else content
            self._send(partial(self._log_artifact, name, data.encode() if isinstance(data, str) else data), name)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set or replace tags."""
        self._send(
            partial(self._set_tags, {clean_name(name): str(value)[:MAX_VALUE_LENGTH] for name, value in tags.items()})
        )

    def log_dataset(self, name: str, digest: str, source: str, profile: Mapping[str, Any], context: str) -> None:
        """Say what data the run read, for MLflow's data set column. The same one again changes nothing.

        Args:
            name: what people call it, e.g. `images/<id>`.
            digest: what tells it from another of that name; MLflow keeps 36 characters.
            source: URI where it lies.
            profile: sizes and the like; JSON-able.
            context: "training" or "evaluation".
        """
        self._send(partial(self._log_dataset, name[:500], digest[:36], source, dict(profile), context))

    def set_experiment_tag(self, name: str, value: str) -> str | None:
        """Set a tag of the run's experiment, now. Returns the experiment's id, None when that failed; never raises."""
        if self.uri is None:
            return None
        try:
            client = _existing(self.uri)
            experiment = str(client.get_run(self.run_id).info.experiment_id)
            client.set_experiment_tag(experiment, name, value)
        except Exception as error:  # noqa: BLE001 - whatever MLflow's clients raise; the work itself is done
            logger.warning("%s is not kept in MLflow at %s: %s", name, covered(self.uri), one_line(error))
            return None
        return experiment

    def flush(self) -> bool:
        """Send what waits. Returns whether all of it is sent; never raises."""
        return self._outbox.flush()

    def _send(self, operation: Callable[[Any], object], name: str | None = None) -> None:
        if self.uri is not None:
            uri = self.uri
            self._outbox.put(lambda: operation(_existing(uri)), name)

    def _is_there(self) -> bool:
        """Whether the tracking server answers: files go elsewhere, or through it to a storage that may be away."""
        try:
            _existing(self.uri or "").get_run(self.run_id)
        except Exception as error:  # noqa: BLE001 - whatever MLflow's clients raise
            return _is_refusal(error)
        return True

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

    def _log_dataset(
        self, name: str, digest: str, source: str, profile: dict[str, Any], context: str, client: Any
    ) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag
        from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

        dataset = Dataset(name, digest, "uri", json.dumps({"uri": source}), profile=json.dumps(profile))
        client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag(MLFLOW_DATASET_CONTEXT, context)])])

    def _log_artifact(self, name: str, data: bytes, client: Any) -> None:
        folder, _, base = name.rpartition("/")
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / base
            path.write_bytes(data)
            client.log_artifact(self.run_id, str(path), folder or None)

    def end(self, status: str) -> None:
        """Close the run; `status` is MLflow's FINISHED, FAILED or KILLED. Never raises."""
        self._send(lambda client: client.set_terminated(self.run_id, status))
        if not self.flush():
            waiting, files = len(self._outbox), self._outbox.num_aside
            lost = "MLflow at %s is still away: %d entries of run %s are lost; run the job again to send them"
            if waiting == files:
                lost = "MLflow at %s could not store %d file(s) of run %s; run the job again to send them"
            logger.warning(lost, covered(self.uri or ""), waiting, self.run_id)


def clean_name(name: str) -> str:
    """A name that every MLflow server takes."""
    return re.sub(r"[^\w\-./ ]", "_", name)[:250]


RETRIED = frozenset({401, 403, 408, 429})
"""Answers that speak of the moment and not of the entry: a password being changed, a proxy's limit or timeout."""


def _is_refusal(error: Exception) -> bool:
    """Whether a server answered and said no to this entry (asking again would be answered alike)."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return False
    status = int(error.get_http_status_code())
    return status < 500 and status not in RETRIED

"""Finding runs of MLflow's by what they are of: in an experiment and in those of its sweeps and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.credentials import covered, covered_in
from pipeline.core.errors import InputError
from pipeline.core.identity import content_hash
from pipeline.core.outbox import one_line
from pipeline.core.tracking_uri import SQLITE, sqlite_path, tracking_uri
from pipeline.stages.run_handle import mlflow_client

Parents = Mapping[str, str | Sequence[str]]
_TRAININGS = "tags.`synthclones.job` = 'train'"
_PAGE = 1000  # experiments of one answer


def run_key(job: str, artifact_id: str, store: Store) -> str:
    """The tag `synthclones.key` of the runs of a job on an artifact."""
    return content_hash([job, artifact_id, store.root])[:32]


def find(client: Any, experiment_ids: Sequence[str], key: str) -> Any:
    """The run of a key (`mlflow.entities.Run`) in the first of the experiments that has one, or None."""
    found = client.search_runs(list(experiment_ids), f"tags.`synthclones.key` = '{key}'", max_results=_PAGE)
    return min(found, key=lambda run: experiment_ids.index(run.info.experiment_id), default=None)


def family(client: Any, name: str) -> list[str]:
    """Ids of an experiment, where there is one, and of its sweeps' and studies'."""
    token, found = None, []
    while True:
        page = client.search_experiments(max_results=_PAGE, page_token=token)
        found += [one for one in page if one.name == name or one.name.startswith(f"{name}/")]
        token = page.token
        if not token:
            return [str(one.experiment_id) for one in sorted(found, key=lambda one: one.name != name)]


def find_run(config: RunConfig, store: Store, job: str, artifact_id: str, parent_run: str | None = None) -> Any:
    """The MLflow run of a job on an artifact (`mlflow.entities.Run`), or None. Raises what MLflow's clients raise.

    Args:
        config: its `tracking` says where.
        store: the storage root.
        job: as of `tracked_run`.
        artifact_id: as of `tracked_run`.
        parent_run: look only where this sweep's or study's run is; default: in the experiment, then in those below it.
    """
    client = mlflow_client(tracking_uri(config.tracking, store))
    ids = family(client, config.tracking.experiment) if parent_run is None else [experiment_of(client, parent_run)]
    return find(client, ids, run_key(job, artifact_id, store)) if ids else None


def experiment_of(client: Any, run_id: str) -> str:
    """Id of a run's experiment. Raises what MLflow's clients raise."""
    return str(client.get_run(run_id).info.experiment_id)


def model_of_run(config: RunConfig, store: Store, run: str) -> str:
    """Directory of the model that a run of MLflow's trained.

    Args:
        config: its `tracking` says where.
        store: the storage root.
        run: id or name.

    Raises:
        InputError: MLflow cannot be used, or has no such training, or several.
    """
    uri = tracking_uri(config.tracking, store)
    models: set[str] = set()
    if config.tracking.enabled and not (uri.startswith(SQLITE) and not sqlite_path(uri).exists()):
        try:
            client = mlflow_client(uri)
            if ids := family(client, config.tracking.experiment):
                runs = client.search_runs(ids, _TRAININGS, max_results=10_000)
                found = [one for one in runs if run in (one.info.run_id, one.info.run_name)]
                models = {one.data.tags["synthclones.artifact_id"] for one in found}
        except Exception as error:  # MLflow's clients raise whatever requests, SQLAlchemy and boto raise
            why = covered_in(one_line(error), uri)
            message = f"models/{run} is not there, and MLflow at {covered(uri)!r} cannot be used: {why}"
            raise InputError(message) from error
    if len(models) != 1:
        several = f"{len(models)} trainings" if models else "no training"
        raise InputError(
            f"models/{run} is not there, and experiment {config.tracking.experiment!r} of MLflow at {covered(uri)!r} "
            f"has {several} of that run id or name; give a directory name under models/, or a run's id"
        )
    return f"models/{models.pop()}"


def links(client: Any, experiment_ids: Sequence[str], store: Store, parents: Parents) -> dict[str, str]:
    """Tags that name the parents' artifacts and, where those have one, their runs; and a description with links.

    Args:
        client: MLflow's.
        experiment_ids: where parents are looked for, in this order.
        store: the storage root.
        parents: as of `tracked_run`.
    """
    tags, lines = {}, []
    for job, given in parents.items():
        ids = [given] if isinstance(given, str) else list(given)
        runs = [found.info for i in ids if (found := find(client, experiment_ids, run_key(job, i, store)))]
        tags[f"synthclones.parent.{job}.artifact_id"] = ",".join(ids)
        tags[f"synthclones.parent.{job}"] = ",".join(run.run_id for run in runs)
        lines += [f"* read [{run.run_name}](#/experiments/{run.experiment_id}/runs/{run.run_id})" for run in runs]
    return {**tags, "mlflow.note.content": "\n".join(lines)} if tags else {}

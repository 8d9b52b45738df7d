"""A finished model in MLflow's model registry: a traced graph that loads without this project, and without pickle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pipeline.core.artifact import Store
from pipeline.core.augment import as_float, normalise
from pipeline.core.classifier import TrainedClassifier, load_classifier
from pipeline.core.config import RunConfig
from pipeline.core.credentials import covered, covered_in
from pipeline.core.errors import InputError
from pipeline.core.outbox import one_line
from pipeline.core.tracking_uri import tracking_uri
from pipeline.core.versions import installed_versions
from pipeline.stages.run_handle import mlflow_client
from pipeline.stages.run_search import find_run

MODEL_ID = "synthclones.model_id"
"""The version's tag that holds the model's directory name: registering a model again finds its version by it."""


class PixelsToLogits(nn.Module):
    """Pictures uint8 [N, S, S, 3] to logits float32 [N, classes], so that a server's clients need no constants."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalise and classify."""
        logits: Tensor = self.classifier(normalise(as_float(pixels)))
        return logits


def register_model(config: RunConfig, store: Store, model_dir: str, name: str, alias: str) -> dict[str, Any]:
    """Put a model into the registry of the run's MLflow, under an alias that moves to it.

    The version belongs to the MLflow run of the training. A model that is registered already gets no second version.

    Args:
        config: its `tracking` says where.
        store: the storage root.
        model_dir: directory of a finished model.
        name: of the registered model; no "/" or ":".
        alias: e.g. "champion"; where another version has it, it moves.

    Returns:
        `name`, `version`, `alias`, `model_uri` (what `mlflow.pytorch.load_model` takes), `existing`, `tracking_uri`.

    Raises:
        InputError: no such model, tracking is off, its training has no MLflow run, MLflow cannot be used, or it
            refuses a name.
    """
    if not config.tracking.enabled:
        raise InputError("tracking.enabled is false, so there is no model registry; give --set tracking.enabled=true")
    if not name or set(name) & set("/:"):
        raise InputError(f"{name!r} is no name for a registered model: it must hold neither / nor :")
    model = load_classifier(store, model_dir)
    uri = tracking_uri(config.tracking, store)
    model_id = model_dir.rpartition("/")[2]
    try:
        run_id = _training_run(config, store, model_id)
        found = _version(uri, name, model_id)
        version = found or _log(uri, run_id, model, name, model_id)
        mlflow_client(uri).set_registered_model_alias(name, alias, version)
    except InputError:
        raise
    except Exception as error:  # MLflow's clients raise whatever requests, SQLAlchemy and boto raise
        raise InputError(
            f"MLflow at {covered(uri)!r} did not register {name!r}: {covered_in(one_line(error), uri)}"
        ) from error
    return {
        "name": name,
        "version": version,
        "alias": alias,
        "model_uri": f"models:/{name}@{alias}",
        "existing": found is not None,
        "tracking_uri": covered(uri),
    }


def _training_run(config: RunConfig, store: Store, model_id: str) -> str:
    run = find_run(config, store, "train", model_id)
    if run is None:
        raise InputError(
            f"models/{model_id} has no run in experiment {config.tracking.experiment!r} of MLflow at "
            f"{covered(tracking_uri(config.tracking, store))}; run jobs.train with the same settings again: "
            "a finished model gets its run in seconds"
        )
    return str(run.info.run_id)


@contextmanager
def _tracking_at(uri: str) -> Iterator[None]:
    """MLflow's own notion of where it is; it would stay in this process's environment, for every later job too."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None takes it away


def _version(uri: str, name: str, model_id: str) -> str | None:
    quoted = name.replace("'", "''")
    versions = mlflow_client(uri).search_model_versions(f"name = '{quoted}'")
    return next((str(one.version) for one in versions if one.tags.get(MODEL_ID) == model_id), None)


def _log(uri: str, run_id: str, model: TrainedClassifier, name: str, model_id: str) -> str:
    """A new version's number."""
    import mlflow
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    size, num_classes = model.train.input_size, len(model.wnids)
    signature = ModelSignature(
        Schema([TensorSpec(np.dtype("uint8"), (-1, size, size, 3), "pixels")]),
        Schema([TensorSpec(np.dtype("float32"), (-1, num_classes), "logits")]),
    )
    with _tracking_at(uri), mlflow.start_run(run_id=run_id):
        info = mlflow.pytorch.log_model(
            PixelsToLogits(model.model).eval(),
            name="classifier",
            signature=signature,
            input_example=np.zeros((2, size, size, 3), np.uint8),
            pip_requirements=[f"{package}=={v}" for package, v in installed_versions("torch", "mlflow").items()],
            metadata={"class_names": model.class_names, "wnids": model.wnids, "input_size": size},
            serialization_format="pt2",  # a graph, no pickle
            registered_model_name=name,
            tags={MODEL_ID: model_id},
        )
    version = str(info.registered_model_version)
    mlflow_client(uri).set_model_version_tag(name, version, MODEL_ID, model_id)
    return version

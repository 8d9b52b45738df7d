"""Models in a real MLflow registry; tests/jobs/test_register.py reads one back as a user does."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig, TrackingConfig
from pipeline.core.errors import InputError
from pipeline.stages.model_registry import register_model
from pipeline.stages.run_handle import mlflow_client
from pipeline.stages.tracking import tracked_run

CONFIG = RunConfig()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One root for the module: a new database costs seconds."""
    return Store.open(str(tmp_path_factory.mktemp("registry")))


def saved(store: Store, save_model: Any, seed: int, *, tracked: bool = True) -> str:
    directory: str = save_model(store, "synthetic", seed=seed)
    if tracked:
        with tracked_run(CONFIG, store, "train", directory.rpartition("/")[2], {}, {}):
            pass
    return directory


def test_the_same_model_again_is_the_same_version_and_an_alias_moves(store: Store, save_model: Any) -> None:
    first, second = (saved(store, save_model, seed) for seed in (2, 3))
    one = register_model(CONFIG, store, first, "bags", "champion")
    again = register_model(CONFIG, store, first, "bags", "champion")
    assert (one["version"], one["existing"]) == ("1", False) and (again["version"], again["existing"]) == ("1", True)
    two = register_model(CONFIG, store, second, "bags", "champion")
    client = mlflow_client(two["tracking_uri"])
    assert client.get_model_version_by_alias("bags", "champion").version == int(two["version"]) == 2
    run = client.get_run(client.get_model_version("bags", "1").run_id)
    assert run.data.tags["synthclones.artifact_id"] == first.rpartition("/")[2]
    assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("name", "tracking", "says"),
    [
        ("a/b", {}, "neither / nor :"),
        ("ok", {"enabled": False}, "tracking.enabled=true"),
        ("ok", {"experiment": "elsewhere"}, "run jobs.train"),
        ("ok", {"uri": "http://127.0.0.1:9"}, "did not register"),
    ],
)
def test_what_cannot_be_registered_is_one_line(
    store: Store, save_model: Any, name: str, tracking: dict[str, Any], says: str
) -> None:
    directory = saved(store, save_model, 5)
    config = RunConfig(tracking=TrackingConfig(**tracking))
    with pytest.raises(InputError, match=says) as caught:
        register_model(config, store, directory, name, "champion")
    assert "\n" not in str(caught.value)

"""cluster.yaml, by Ray's own check and by what our jobs need of it. Ray does not look into node_config; AWS would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = Path(__file__).parent.parent / "cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(CLUSTER.read_text(encoding="utf-8"))
    return value


def test_ray_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


def test_ray_would_refuse_a_misspelt_key(config: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config({**config, "idle_timeout_minute": 5}))


def test_head_takes_no_tasks_and_workers_may_all_go(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    workers = {name: node for name, node in types.items() if name != config["head_node_type"]}
    assert {name: node["min_workers"] for name, node in workers.items()} == {"cpu": 0, "gpu": 0}
    assert sum(node["max_workers"] for node in workers.values()) == config["max_workers"]


def test_every_node_names_an_image_and_instance(config: dict[str, Any]) -> None:
    for node in config["available_node_types"].values():  # without an image Ray takes one whose Python is too old
        assert {"ImageId", "InstanceType"} <= set(node["node_config"])


def test_gpu_nodes_are_spot_and_no_other(config: dict[str, Any]) -> None:
    types = config["available_node_types"]
    assert [name for name, node in types.items() if "InstanceMarketOptions" in node["node_config"]] == ["gpu"]


def test_nodes_are_set_up_from_the_lock_and_keep_local_state_out(config: dict[str, Any]) -> None:
    assert config["setup_commands"][0].endswith("make setup")
    assert {".venv", "runs", ".git"} <= set(config["rsync_exclude"])


def test_dashboard_is_not_open_to_the_network(config: dict[str, Any]) -> None:
    start = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start and "0.0.0.0" not in start

"""cluster.yaml, by Ray's own check and by what our jobs need of it. Ray does not look into node_config; AWS would."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate
import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import NodeTypeConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.dashboard.consts import DEFAULT_JOB_START_TIMEOUT_SECONDS, RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR

from tests.conftest import REPOSITORY
from tests.faults.long_run import HEAD

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


def groups(config: dict[str, Any]) -> dict[str, Any]:
    return {name: node for name, node in config["available_node_types"].items() if name != config["head_node_type"]}


def test_head_takes_no_tasks_and_workers_may_all_go(config: dict[str, Any]) -> None:
    assert config["available_node_types"][config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}
    assert {name: node["min_workers"] for name, node in groups(config).items()} == {
        "cpu": 0, "gpu_spot": 0, "gpu_on_demand": 0,
    }  # fmt: skip
    for node in groups(config).values():
        assert 0 < node["max_workers"] <= config["max_workers"]


def test_every_node_names_an_image_and_instance(config: dict[str, Any]) -> None:
    images = {node["node_config"]["ImageId"] for node in config["available_node_types"].values()}
    assert len(images) == 1 and images.pop().endswith(":1")  # a version: no image may move under a cluster
    assert all("IamInstanceProfile" in node["node_config"] for node in groups(config).values())


def test_aws_knows_every_key_of_the_nodes(config: dict[str, Any]) -> None:
    operation = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    shape = botocore.model.ServiceModel(operation).operation_model("RunInstances").input_shape
    counts = {"MinCount": 1, "MaxCount": 1}  # which Ray adds
    validator = botocore.validate.ParamValidator()
    for node in config["available_node_types"].values():
        assert not validator.validate({**node["node_config"], **counts}, shape).has_errors(), node
        planted = {**node["node_config"], **counts, "InstanceTyp": "x"}
        assert "InstanceTyp" in validator.validate(planted, shape).generate_report()


def allowed(name: str) -> dict[str, list[str]]:
    """Resource -> actions of a policy in aws/."""
    policy = json.loads((CLUSTER.parent / "aws" / name).read_text(encoding="utf-8"))
    assert policy["Version"] == "2012-10-17" and all(rule["Effect"] == "Allow" for rule in policy["Statement"])
    return {rule["Resource"]: [rule["Action"]] if isinstance(rule["Action"], str) else rule["Action"]
            for rule in policy["Statement"]}  # fmt: skip


def test_the_policies_give_head_and_nodes_what_the_file_makes_them_do(config: dict[str, Any]) -> None:
    role = {node["node_config"]["IamInstanceProfile"]["Name"] for node in groups(config).values()}
    image = config["available_node_types"]["head"]["node_config"]["ImageId"].split(":")[2]
    account = f"{config['provider']['region']}:123456789012"
    assert allowed("head-policy.json") == {
        f"arn:aws:iam::123456789012:role/{role.pop()}": ["iam:PassRole"],
        f"arn:aws:ssm:{account}:parameter{image}": ["ssm:GetParameters"],
    }
    bucket = allowed("node-policy.json")
    assert bucket["arn:aws:s3:::bucket"] == ["s3:ListBucket"]
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= set(bucket["arn:aws:s3:::bucket/*"])


def test_only_the_first_gpu_group_is_spot(config: dict[str, Any]) -> None:
    spot = [name for name, node in groups(config).items() if "InstanceMarketOptions" in node["node_config"]]
    assert spot == ["gpu_spot"]
    first, second = (groups(config)[name] for name in ("gpu_spot", "gpu_on_demand"))
    assert first["node_config"]["InstanceType"] != second["node_config"]["InstanceType"]


def planned(config: dict[str, Any], gpus: int, failed: tuple[str, ...] = ()) -> dict[str, int]:
    """The nodes that Ray's autoscaler asks for, for so many actors of one CPU and one GPU, on an empty cluster."""
    prepared = prepare_config(config)
    types = {
        name: NodeTypeConfig(
            name,
            node["min_workers"],
            node["max_workers"],
            resources=node["resources"],
            priority=node.get("priority", 0),
        )
        for name, node in prepared["available_node_types"].items()
        if name != prepared["head_node_type"]
    }
    wanted = ResourceRequestUtil.group_by_count([ResourceRequestUtil.make({"CPU": 1, "GPU": 1})] * gpus)
    request = SchedulingRequest(
        node_type_configs=types,
        max_num_nodes=prepared["max_workers"] + 1,
        resource_requests=wanted,
        disable_launch_config_check=True,
        recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
    )
    reply = ResourceDemandScheduler(event_logger=None).schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_gpu_work_goes_to_spot_then_to_the_other_group_and_no_further(config: dict[str, Any]) -> None:
    assert planned(config, 3) == {"gpu_spot": 3}
    assert planned(config, 14) == {"gpu_spot": 12, "gpu_on_demand": 2}
    assert planned(config, 3, failed=("gpu_spot",)) == {"gpu_on_demand": 3}
    assert sum(planned(config, 100).values()) == config["max_workers"]


def test_an_environment_of_the_nodes_stays_out_of_git_and_of_what_jobs_are_sent_with(config: dict[str, Any]) -> None:
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        # Between set -a and set +a: exported. A mode left open follows a token file that only one node may have.
        environment = "set -a; . ~/synthclones/cluster.env; RAY_AUTH_MODE=${RAY_AUTH_MODE:-disabled}; set +a; "
        assert config[commands][-1].startswith(environment)
    for ignored in (".gitignore", ".rayignore"):
        named = (CLUSTER.parent / ignored).read_text().splitlines()
        assert {"/cluster.env", ".env", "*.pem", ".netrc"} <= set(named)


def test_nodes_are_set_up_from_the_lock_and_keep_local_state_out(config: dict[str, Any]) -> None:
    assert config["setup_commands"][0].endswith("make setup")
    left = config["rsync_exclude"]
    assert {"/.venv", "/runs", "/.git"} <= set(left)
    # By rsync's rules a name behind "/" is the entry at the root alone; without it, pipeline/presets/runs too.
    assert all(re.fullmatch(r"/[a-z.]+", pattern) for pattern in set(left) - {".env", "*.pem", ".netrc"})
    sources = {"pipeline", "jobs", "tune", "Makefile", "requirements.lock", "pyproject.toml"}
    assert not {f"/{name}" for name in sources} & set(left)


def test_dashboard_is_not_open_to_the_network(config: dict[str, Any]) -> None:
    start = config["head_start_ray_commands"][-1]
    assert "--dashboard-host=127.0.0.1" in start and "0.0.0.0" not in start


def head_of_kubernetes() -> dict[str, Any]:
    pods = yaml.safe_load((REPOSITORY / "k8s/base/raycluster.yaml").read_text(encoding="utf-8"))
    (head,) = pods["spec"]["headGroupSpec"]["template"]["spec"]["containers"]
    container: dict[str, Any] = head
    return container


def test_a_job_may_wait_for_the_first_node_of_an_idle_cluster(config: dict[str, Any]) -> None:
    """Ray fails one that has not begun after a quarter of an hour; a node's boot and `make setup` may take longer."""
    name, seconds = RAY_JOB_START_TIMEOUT_SECONDS_ENV_VAR, "7200"
    assert int(seconds) > DEFAULT_JOB_START_TIMEOUT_SECONDS
    before, _, _ = config["head_start_ray_commands"][-1].partition("ray start --head ")
    assert f"{name}={seconds}" in before.rpartition(";")[2].split()
    assert {"name": name, "value": seconds} in head_of_kubernetes()["env"]


def test_the_head_keeps_as_few_past_calls_as_the_hour_was_measured_with(config: dict[str, Any]) -> None:
    ((name, number),) = ((name, value) for name, value in HEAD.items() if name.startswith("RAY_"))
    assert f" {name}={number} ray start --head " in config["head_start_ray_commands"][-1]
    assert {"name": name, "value": number} in head_of_kubernetes()["env"]
    server = Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server"
    assert name.removeprefix("RAY_").encode() in server.read_bytes()  # a setting that Ray does not know is no error

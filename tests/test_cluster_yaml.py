"""cluster.yaml, by Ray's own check and by what our jobs need of it. Ray does not look into node_config; AWS would."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import botocore.client
import botocore.loaders
import botocore.model
import botocore.validate
import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.aws.config import _configure_iam_role
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.tags import TAG_RAY_CLUSTER_NAME, TAG_RAY_NODE_KIND
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
    assert all("IamInstanceProfile" in node["node_config"] for node in config["available_node_types"].values())


def test_aws_knows_every_key_of_the_nodes(config: dict[str, Any]) -> None:
    operation = botocore.loaders.Loader().load_service_model("ec2", "service-2")
    shape = botocore.model.ServiceModel(operation).operation_model("RunInstances").input_shape
    counts = {"MinCount": 1, "MaxCount": 1}  # which Ray adds
    validator = botocore.validate.ParamValidator()
    for node in config["available_node_types"].values():
        assert not validator.validate({**node["node_config"], **counts}, shape).has_errors(), node
        planted = {**node["node_config"], **counts, "InstanceTyp": "x"}
        assert "InstanceTyp" in validator.validate(planted, shape).generate_report()


ACCOUNT = "123456789012"
NODES = f"arn:aws:ec2:us-west-2:{ACCOUNT}:instance/*"
SPOT = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"


def allowed(name: str) -> list[tuple[set[str], str, dict[str, str]]]:
    """(actions, resource, what must be equal) of each statement of a policy in aws/."""
    policy = json.loads((CLUSTER.parent / "aws" / name).read_text(encoding="utf-8"))
    assert policy["Version"] == "2012-10-17" and all(rule["Effect"] == "Allow" for rule in policy["Statement"])
    return [
        (
            {rule["Action"]} if isinstance(rule["Action"], str) else set(rule["Action"]),
            rule["Resource"],
            rule.get("Condition", {}).get("StringEquals", {}),
        )
        for rule in policy["Statement"]
    ]


def test_the_heads_policy_gives_what_the_file_makes_it_do_and_on_its_own_nodes(config: dict[str, Any]) -> None:
    role = {node["node_config"]["IamInstanceProfile"]["Name"] for node in groups(config).values()}
    image = config["available_node_types"]["head"]["node_config"]["ImageId"].split(":")[2]
    assert config["provider"]["region"] in NODES
    assert allowed("head-policy.json") == [
        ({"ec2:DescribeInstances", "ec2:RunInstances"}, "*", {}),
        ({"ec2:CreateTags"}, NODES, {"ec2:CreateAction": "RunInstances"}),
        (
            {"ec2:CreateTags", "ec2:TerminateInstances"},
            NODES,
            {f"ec2:ResourceTag/{TAG_RAY_CLUSTER_NAME}": config["cluster_name"]},
        ),
        ({"iam:PassRole"}, f"arn:aws:iam::{ACCOUNT}:role/{role.pop()}", {}),
        ({"iam:CreateServiceLinkedRole"}, SPOT, {"iam:AWSServiceName": "spot.amazonaws.com"}),
        ({"ssm:GetParameters"}, f"arn:aws:ssm:us-west-2:{ACCOUNT}:parameter{image}", {}),
    ]


def test_the_bucket_policy_lets_its_bearer_read_and_write_one_bucket() -> None:
    (listing, bucket, _), (actions, objects, _) = allowed("node-policy.json")
    assert (listing, bucket, objects) == ({"s3:ListBucket"}, "arn:aws:s3:::bucket", "arn:aws:s3:::bucket/*")
    assert {"s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= actions


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`service:Operation` of every call to AWS, none of which leaves this process."""
    made: list[str] = []
    node = {"InstanceId": "i-1", "State": {"Name": "running"}, "Tags": [{"Key": "a", "Value": "b"}]}

    def answer(client: Any, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        made.append(f"{client.meta.service_model.service_name}:{operation}")
        return {
            "ec2:DescribeInstances": {"Reservations": [{"Instances": [node]}]},
            "ec2:RunInstances": {"Instances": [node]},
        }.get(made[-1], {})

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", answer)
    return made


def test_ray_leaves_the_heads_role_alone(config: dict[str, Any], calls: list[str]) -> None:
    """Without one, Ray gives the head a role that may do all on every machine and every bucket of the account."""
    prepared = {**prepare_config(config), "head_node": {}}
    assert _configure_iam_role(prepared)["head_node"] == {} and calls == []
    head = prepared["available_node_types"]["head"]["node_config"]["IamInstanceProfile"]["Name"]
    lines = (REPOSITORY / "docs/clusters.md").read_text(encoding="utf-8").splitlines()
    for name, policy in (("nodes", "head-policy"), ("bucket", "node-policy")):
        to_role = f"aws iam put-role-policy --role-name {head} --policy-name {name}"
        assert f"{to_role} --policy-document file://aws/{policy}.json" in lines


def test_the_head_calls_nothing_that_its_policy_does_not_allow(config: dict[str, Any], calls: list[str]) -> None:
    """Ray's own provider of nodes, as the autoscaler on the head uses it."""
    provider = AWSNodeProvider(config["provider"], config["cluster_name"])
    node_config = {**groups(config)["gpu_spot"]["node_config"], "SubnetIds": ["subnet-1"]}
    provider.create_node(node_config, {TAG_RAY_NODE_KIND: "worker"}, 1)
    (node,) = provider.non_terminated_nodes({})
    provider.set_node_tags(node, {"a": "c"})
    provider.terminate_node(node)
    rights = set().union(*(actions for actions, _, _ in allowed("head-policy.json")))
    assert set(calls) == {right for right in rights if right.startswith("ec2:")}


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


def test_an_environment_of_the_nodes_stays_out_of_git_and_of_what_jobs_are_sent_with() -> None:
    for ignored in (".gitignore", ".rayignore"):
        named = (CLUSTER.parent / ignored).read_text().splitlines()
        assert {"/cluster.env", ".env", "*.pem", ".netrc"} <= set(named)


def environment_of_ray(commands: list[str], lines: str, home: Path) -> tuple[dict[str, str], str]:
    """What `ray start` finds on a node whose cluster.env holds these lines, and what the shell said before it."""
    shutil.copytree(REPOSITORY / "aws", home / "synthclones/aws", dirs_exist_ok=True)
    (home / "synthclones/cluster.env").write_bytes(lines.encode())
    before, found, _ = commands[-1].partition("ray start ")
    assert found
    done = subprocess.run(
        ["bash", "-c", f"{before}env -0"],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=True,
    )
    variables = dict(item.split("=", 1) for item in done.stdout.decode().rstrip("\0").split("\0"))
    return variables, done.stderr.decode()


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_the_lines_of_cluster_env_reach_ray_as_they_stand(
    config: dict[str, Any], commands: str, tmp_path: Path
) -> None:
    values = {
        "AND": "a&b;c|d", "SPACES": " two  words ", "DOLLARS": "a$$b$HOME`id`", "QUOTES": "\"kept\" 'too'",
        "BACK": "a\\b\\\\", "HASH": "a #b!c", "EMPTY": "", "EQUAL": "a=b", "LAST": "*",
    }  # fmt: skip
    lines = "# where things are\n\n" + "\n".join(f"{name}={value}" for name, value in values.items())
    found, _ = environment_of_ray(config[commands], lines, tmp_path)
    assert {name: found.get(name) for name in values} == values


def test_a_line_of_cluster_env_that_is_no_setting_is_told_by_its_number_alone(
    config: dict[str, Any], tmp_path: Path
) -> None:
    lines = "hush-1\nA B=hush-2\r\n1C=hush-3\nGOOD=x\r\n"
    found, said = environment_of_ray(config["worker_start_ray_commands"], lines, tmp_path)
    assert found["GOOD"] == "x" and "hush" not in said
    assert [f"line {number} of cluster.env" in said for number in (1, 2, 3, 4)] == [True, True, True, False]


def test_blanks_before_a_line_of_cluster_env_and_an_editors_mark_are_no_part_of_it(
    config: dict[str, Any], tmp_path: Path
) -> None:
    lines = "\ufeffFIRST=1\n  SECOND= 2\n\t# a note\n   \n"
    found, said = environment_of_ray(config["worker_start_ray_commands"], lines, tmp_path)
    assert (found["FIRST"], found["SECOND"], "cluster.env" in said) == ("1", " 2", False)


@pytest.mark.parametrize("commands", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_no_token_that_happens_to_lie_on_a_node_is_taken(config: dict[str, Any], commands: str, tmp_path: Path) -> None:
    for lines, mode in (("", "disabled"), ("RAY_AUTH_MODE=token", "token")):
        assert environment_of_ray(config[commands], lines, tmp_path)[0]["RAY_AUTH_MODE"] == mode


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

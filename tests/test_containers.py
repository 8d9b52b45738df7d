"""Dockerfile and Kubernetes manifests, by what our jobs need of them. No engine and no cluster run here.

The manifests were held once against KubeRay's own schemas (docs/log.md); here stands what those do not know.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._private.services import determine_plasma_store_config
from ray._private.utils import resolve_object_store_memory

REPOSITORY = Path(__file__).parent.parent
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
INSTRUCTION = re.compile(r"^([A-Z]+) ((?:.*\\\n)*.*)$", re.MULTILINE)


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage, by its name."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for word, rest in INSTRUCTION.findall(DOCKERFILE):
        if word == "FROM":
            name = rest.rpartition(" AS ")[2]
        found.setdefault(name, []).append((word, rest))
    return found


def test_bases_are_pinned_and_have_one_python() -> None:
    bases = dict(rest.split("=") for word, rest in stages()[""] if word == "ARG")
    assert set(bases) == {"CPU_BASE", "GPU_BASE"}
    for base in bases.values():
        assert re.fullmatch(r"[a-z/]+:[a-z0-9.-]*(ubuntu)?24\.04", base), base


def test_the_gpu_base_has_the_cuda_of_the_locked_libraries() -> None:
    base = re.search(r"^ARG GPU_BASE=nvidia/cuda:(\d+)\.", DOCKERFILE, re.MULTILINE)
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    majors = set(re.findall(r"^nvidia-cuda-runtime(?:-cu\d+)?==(\d+)\.", lock, re.MULTILINE))
    assert base and majors == {base[1]}


@pytest.mark.parametrize("stage", ["cpu", "gpu"])
def test_an_image_runs_as_nobody_in_particular(stage: str) -> None:
    *_, user = [rest for word, rest in stages()[stage] if word == "USER"]
    assert user == "1000:1000"


def test_gpu_is_the_default_and_both_have_the_same_environment() -> None:
    names = list(stages())
    assert names == ["", "setup", "cpu", "gpu"]
    cpu, gpu = ([line for line in stages()[name] if line[0] != "FROM"] for name in ("cpu", "gpu"))
    assert cpu == gpu


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_install_step_is_the_makefiles_own_and_finds_what_it_needs(tmp_path: Path) -> None:
    """`make setup` itself is run by every `make test`; here, that the files copied before it are enough for it."""
    lines = stages()["setup"]
    (number,) = [index for index, (word, rest) in enumerate(lines) if word == "RUN" and "make setup" in rest]
    for word, rest in lines[:number]:
        if word == "COPY":
            for name in rest.split()[1:-1]:
                shutil.copy(REPOSITORY / name, tmp_path)
    planned = subprocess.run(["make", "-n", "setup"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "pip sync" in planned.stdout and "--require-hashes requirements.lock" in planned.stdout
    installers = re.compile(r"\bpip3? install|\bconda\b|curl |wget ")
    assert not [
        rest for lines in stages().values() for word, rest in lines if word == "RUN" and installers.search(rest)
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_install_step_makes_an_environment_that_runs_the_sources_of_the_image(tmp_path: Path) -> None:
    """The setup stage in a clean folder: its COPYs, and its RUNs but for Debian's packages and paths of root's."""
    cache = subprocess.run(["uv", "cache", "dir"], capture_output=True, text=True, check=False, env=with_uv()).stdout
    ran = []
    for word, rest in stages()["setup"]:
        if word == "COPY":
            *names, place = rest.split()[1:]
            for name in names:
                source = REPOSITORY / name
                copy = shutil.copytree if source.is_dir() else shutil.copy
                copy(source, tmp_path / (place if source.is_dir() else name))
        elif word == "RUN" and not re.search(r"apt-get|/opt/", rest):
            line = rest.replace("/tmp/uv", str(tmp_path / "uv")).replace("/tmp", str(tmp_path))
            if cache:  # the machine's own saves the download; the line's would be empty
                line = line.replace(f"UV_CACHE_DIR={tmp_path / 'uv'}", f"UV_CACHE_DIR={cache.strip()}")
            subprocess.run(line, shell=True, cwd=tmp_path, check=True)
            ran.append(line)
    assert len(ran) == 1
    program = [tmp_path / ".venv/bin/python", "-m", "jobs.generate", "--preset", "fashion", "--dry-run"]
    done = subprocess.run(program, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "images_per_class" in done.stdout


def with_uv() -> dict[str, str]:
    """An environment whose PATH has the Makefile's uv."""
    (folder,) = (REPOSITORY / ".uv").glob("*/bin")
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_the_image_gets_the_sources_and_nothing_else() -> None:
    copied = {
        name
        for word, rest in stages()["setup"]
        if word == "COPY"
        for name in rest.split()[1:-1]
    }  # fmt: skip
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == allowed and all((REPOSITORY / name).exists() for name in copied)
    assert not {".", "runs", "cluster.env", ".git"} & copied


def documents(path: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((REPOSITORY / "k8s" / path).read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def ray_cluster_spec() -> dict[str, Any]:
    (cluster,) = documents("base/raycluster.yaml")
    spec: dict[str, Any] = cluster["spec"]
    return spec


def pods(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    groups = {group["groupName"]: group["template"]["spec"] for group in spec["workerGroupSpecs"]}
    return {"head": spec["headGroupSpec"]["template"]["spec"], **groups}


def test_kubernetes_has_the_groups_of_the_cluster_file(ray_cluster_spec: dict[str, Any]) -> None:
    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text(encoding="utf-8"))
    ours = {
        name.replace("_", "-"): (node["min_workers"], node["max_workers"], node.get("priority"))
        for name, node in config["available_node_types"].items()
        if name != "head"
    }
    theirs = {
        group["groupName"]: (group["minReplicas"], group["maxReplicas"], group.get("priority"))
        for group in ray_cluster_spec["workerGroupSpecs"]
    }
    assert theirs == ours
    assert ray_cluster_spec["autoscalerOptions"]["idleTimeoutSeconds"] == 60 * config["idle_timeout_minutes"]
    assert ray_cluster_spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}


def test_kubernetes_runs_the_locked_ray_with_a_token(ray_cluster_spec: dict[str, Any]) -> None:
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    locked = re.search(r"^ray(?:\[.*\])?==(\S+)", lock, re.MULTILINE)
    assert locked and ray_cluster_spec["rayVersion"] == locked[1]
    assert ray_cluster_spec["authOptions"] == {"mode": "token"}


def test_every_pod_is_confined_probed_and_limited(ray_cluster_spec: dict[str, Any]) -> None:
    for name, pod in pods(ray_cluster_spec).items():
        (container,) = pod["containers"]
        rules = container["securityContext"]
        assert rules["runAsNonRoot"] and not rules["allowPrivilegeEscalation"], name
        assert rules["capabilities"] == {"drop": ["ALL"]}, name
        assert container["resources"]["requests"] == container["resources"]["limits"], name
        assert {"readinessProbe", "livenessProbe"} <= set(container) and pod["nodeSelector"], name
        assert pod["automountServiceAccountToken"] is (name == "head"), name


def test_the_documented_quota_holds_all_groups_at_their_limit(ray_cluster_spec: dict[str, Any]) -> None:
    counts = {group["groupName"]: group["maxReplicas"] for group in ray_cluster_spec["workerGroupSpecs"]}
    asked = [
        (counts.get(name, 1), pod["containers"][0]["resources"]["requests"])
        for name, pod in pods(ray_cluster_spec).items()
    ]
    text = (REPOSITORY / "docs" / "clusters.md").read_text(encoding="utf-8")
    quota = re.search(r"--hard=requests.cpu=(\d+),requests.memory=(\d+)Gi,requests.nvidia.com/gpu=(\d+)", text)
    assert quota
    cpus = sum(count * int(request["cpu"]) for count, request in asked)
    memory = sum(count * int(request["memory"].removesuffix("Gi")) for count, request in asked)
    gpus = sum(count * int(request.get("nvidia.com/gpu", 0)) for count, request in asked)
    # 1 CPU and 1 GiB for the autoscaler beside the head and a job's submitter.
    assert (cpus + 1 <= int(quota[1]), memory + 1 <= int(quota[2]), gpus) == (True, True, int(quota[3]))
    assert f"ask for {cpus} CPUs" in text and f"{memory} GiB of memory and {gpus} GPUs" in text


def test_only_gpu_pods_take_gpus_and_tolerate_their_nodes(ray_cluster_spec: dict[str, Any]) -> None:
    for name, pod in pods(ray_cluster_spec).items():
        limits = pod["containers"][0]["resources"]["limits"]
        assert ("nvidia.com/gpu" in limits, "tolerations" in pod) == (name.startswith("gpu"),) * 2
        assert pod["containers"][0]["image"] == ("synthclones" if name.startswith("gpu") else "synthclones-cpu")


def test_a_probe_asks_the_port_that_ray_answers_health_on(ray_cluster_spec: dict[str, Any]) -> None:
    from ray._private.ray_constants import DEFAULT_DASHBOARD_AGENT_LISTEN_PORT

    for pod in pods(ray_cluster_spec).values():
        code = pod["containers"][0]["readinessProbe"]["exec"]["command"][-1]
        assert f":{DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}/api/local_raylet_healthz" in code
        compile(code, "probe", "exec")


def test_no_manifest_holds_a_secret() -> None:
    for path in (REPOSITORY / "k8s").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"kind: Secret\b|(SECRET|PASSWORD|TOKEN)\w*[=:] *\S", text), path


def test_the_job_is_one_of_ours_on_the_cluster_of_base() -> None:
    (job,) = documents("jobs/generate.yaml")
    assert job["spec"]["clusterSelector"] == {
        "ray.io/cluster": documents("base/raycluster.yaml")[0]["metadata"]["name"]
    }
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["python", "-m"] and (REPOSITORY / f"{words[2].replace('.', '/')}.py").exists()
    assert words[words.index("--root") + 1].startswith("s3://")


def patched(overlay: str) -> dict[str, Any]:
    """The RayCluster of base under an overlay's JSON patches (RFC 6902), as `kubectl kustomize` makes it."""
    (cluster,) = json.loads(json.dumps(documents("base/raycluster.yaml")))  # what YAML's aliases share, apart
    (kustomization,) = documents(f"overlays/{overlay}/kustomization.yaml")
    for patch in kustomization["patches"]:
        assert patch["target"] == {"kind": cluster["kind"], "name": cluster["metadata"]["name"]}
        for step in yaml.safe_load(patch["patch"]):
            *above, last = [word.replace("~1", "/").replace("~0", "~") for word in step["path"].split("/")[1:]]
            parent: Any = cluster
            for word in above:
                parent = parent[int(word) if isinstance(parent, list) else word]
            if step["op"] == "add" and last == "-":
                parent.append(step["value"])
                continue
            key = int(last) if isinstance(parent, list) else last
            assert step["op"] == "add" or parent[key] is not None  # what is removed or replaced must be there
            if step["op"] == "remove":
                del parent[key]
            else:
                parent[key] = step["value"]
    spec: dict[str, Any] = cluster["spec"]
    return spec


@pytest.mark.parametrize("overlay", [None, "cpu", "gke"])
def test_rays_own_store_of_objects_fits_each_pods_shared_memory(
    ray_cluster_spec: dict[str, Any], overlay: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Ray's own rule; a store that does not fit is put on the disk, with a warning in a log that nobody reads."""
    for name, pod in pods(patched(overlay) if overlay else ray_cluster_spec).items():
        (shared,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shared-memory")
        sizes = (shared["sizeLimit"], pod["containers"][0]["resources"]["limits"]["memory"])
        size, memory = (int(text.removesuffix("Gi")) << 30 for text in sizes)
        monkeypatch.setattr("ray._private.utils.get_shared_memory_bytes", lambda size=size: size)
        monkeypatch.setattr("ray._common.utils.get_system_memory", lambda memory=memory: memory)
        store = resolve_object_store_memory(memory)
        assert determine_plasma_store_config(store, str(tmp_path))[0] == "/dev/shm", (name, store / 2**30)


def test_the_cpu_overlay_takes_the_gpu_groups_away() -> None:
    assert [group["groupName"] for group in patched("cpu")["workerGroupSpecs"]] == ["cpu"]


def test_the_gke_overlay_patches_the_groups_that_it_means() -> None:
    groups = {group["groupName"]: group["template"]["spec"] for group in patched("gke")["workerGroupSpecs"]}
    accelerator, spot = "cloud.google.com/gke-accelerator", "cloud.google.com/gke-spot"
    assert {name: pod["nodeSelector"] for name, pod in groups.items()} == {
        "cpu": {"kubernetes.io/os": "linux"},
        "gpu-spot": {accelerator: "nvidia-l4", spot: "true"},
        "gpu-on-demand": {accelerator: "nvidia-tesla-t4"},
    }
    tolerated = {name: {rule["key"] for rule in pod.get("tolerations", [])} for name, pod in groups.items()}
    assert tolerated == {"cpu": set(), "gpu-spot": {"nvidia.com/gpu", spot}, "gpu-on-demand": {"nvidia.com/gpu"}}


def test_a_job_on_a_shared_cluster_asks_for_no_retry_that_would_remove_it() -> None:
    for path in (REPOSITORY / "k8s").rglob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            if document["kind"] == "RayJob":
                assert not {"clusterSelector", "backoffLimit"} <= set(document["spec"]), path


def test_pods_and_policy_are_kubernetes_own_kinds(ray_cluster_spec: dict[str, Any]) -> None:
    import kubernetes_validate as validator

    (job,) = documents("jobs/generate.yaml")
    specs = [*pods(ray_cluster_spec).values(), job["spec"]["submitterPodTemplate"]["spec"]]
    kinds = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec} for spec in specs]
    for document in [*kinds, *documents("base/networkpolicy.yaml")]:
        validator.validate(document, validator.latest_version(), strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate(
            {**kinds[0], "spec": {**specs[0], "nodeSelektor": {}}}, validator.latest_version(), strict=True
        )

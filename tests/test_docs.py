"""The documentation is true: every command line in it is known here, parses, and is run by a test.

A command line is a line of a fenced ```bash block in README.md, CONTRIBUTING.md or docs/*.md; output stands in blocks
marked ```text. Lines of one of our commands are run here with --dry-run, or with --help where a command has no dry run;
`RUN_BY` names the test that runs the command for real. Any other line stands in `OTHER_LINES` with what covers it.
"""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

REPOSITORY = Path(__file__).parent.parent
DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]

RUN_BY = {
    "jobs.build_classes": "tests/jobs/test_build_classes.py",
    "jobs.build_prompts": "tests/jobs/test_build_prompts.py",
    "jobs.check_prompts": "tests/jobs/test_check_prompts.py",
    "jobs.fetch_data": "tests/jobs/test_fetch_data.py",
    "jobs.generate": "tests/jobs/test_generate.py",
    "jobs.train": "tests/jobs/test_train.py",
    "jobs.evaluate": "tests/jobs/test_evaluate.py",
    "jobs.compare": "tests/jobs/test_compare.py",
    "jobs.register": "tests/jobs/test_register.py",
    "jobs.transfer": "tests/jobs/test_transfer.py",
    "jobs.analyze": "tests/jobs/test_analyze.py",
    "jobs.audit": "tests/jobs/test_audit.py",
    "jobs.submit": "tests/jobs/test_submit.py",
    "jobs.demo": "tests/jobs/test_demo.py",
    "jobs.study": "tests/jobs/test_study.py",
    "jobs.bench": "tests/jobs/test_bench.py",
    "jobs.preview": "tests/jobs/test_preview.py",
    "jobs.gallery": "tests/jobs/test_gallery.py",
    "jobs.plan": "tests/jobs/test_plan.py",
    "jobs.verify": "tests/jobs/test_verify.py",
    "jobs.regenerate": "tests/jobs/test_regenerate.py",
    "jobs.train_generator": "tests/jobs/test_train_generator.py",
    "tune.scaling": "tests/tune/test_scaling.py",
    "tune.grow": "tests/tune/test_grow.py",
    "tune.sweep": "tests/tune/test_sweep.py",
    "tune.promote": "tests/tune/test_promote.py",
}

# Line -> what covers it.
OTHER_LINES = {
    ". .venv/bin/activate": "the environment that this test runs in was made by `make setup`",
    "python -m tests.faults.soak --kills 216 --seed 20261123 --minutes 88": "tests/faults/test_soak.py, a short one",
    "python -m tests.faults.soak --kills 27 --seed 20261124 --only driver": "tests/faults/test_soak.py, a short one",
    ".venv/bin/python -m tests.browser.mlflow_pictures --folder /tmp/pictures": "not run: minutes",
    ".venv/bin/python -m pytest -m gpu tests/gpu": "not run: no GPU here; every test run collects these files",
    "export RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265": "tests/faults/test_submitted.py sets it so",
    "ray job submit --working-dir . --entrypoint-num-cpus 1 -- "
    "python -m jobs.generate --preset imagenet1k_sd --root s3://bucket/prefix --set generate.num_actors=8": (
        "tests/faults/test_submitted.py"
    ),
    "ray job list": "tests/jobs/test_submit.py",
    "ray job stop night-0123456789ab": "tests/faults/test_submitted.py stops a job so",
    "ray get-auth-token --generate": "not run: it writes into HOME; tests/cluster_head.py has a token file",
    "export RAY_AUTH_MODE=token": "tests/cluster_head.py sets it so",
    "ray up cluster.yaml": "tests/test_cluster_yaml.py holds the file against Ray's own check; not run: no cloud here",
    "ray dashboard cluster.yaml": "not run: no cloud here",
    "ray down cluster.yaml": "not run: no cloud here",
    "aws s3 mb s3://bucket": "not run: no cloud here",
    "aws s3api put-bucket-lifecycle-configuration --bucket bucket --lifecycle-configuration "
    "file://lifecycle.json": "not run: no cloud here",
    "aws ssm put-parameter --name /synthclones/image --type String --data-type aws:ec2:image "
    "--value ami-0123456789abcdef0": "not run: no cloud here; tests/test_cluster_yaml.py wants its version",
    "aws iam create-instance-profile --instance-profile-name synthclones-node": "not run: no cloud here",
    "aws iam create-role --role-name synthclones-node "
    "--assume-role-policy-document file://aws/node-trust.json": "tests/test_cluster_yaml.py; not run: no cloud here",
    "aws iam put-role-policy --role-name synthclones-node --policy-name bucket "
    "--policy-document file://aws/node-policy.json": "tests/test_cluster_yaml.py; not run: no cloud here",
    "aws iam add-role-to-instance-profile --instance-profile-name synthclones-node "
    "--role-name synthclones-node": "not run: no cloud here",
    "aws iam create-instance-profile --instance-profile-name synthclones-head": "not run: no cloud here",
    "aws iam create-role --role-name synthclones-head "
    "--assume-role-policy-document file://aws/node-trust.json": "tests/test_cluster_yaml.py; not run: no cloud here",
    "aws iam put-role-policy --role-name synthclones-head --policy-name nodes "
    "--policy-document file://aws/head-policy.json": "tests/test_cluster_yaml.py; not run: no cloud here",
    "aws iam put-role-policy --role-name synthclones-head --policy-name bucket "
    "--policy-document file://aws/node-policy.json": "tests/test_cluster_yaml.py; not run: no cloud here",
    "aws iam add-role-to-instance-profile --instance-profile-name synthclones-head "
    "--role-name synthclones-head": "not run: no cloud here",
    "kubectl create quota synthclones --hard=requests.cpu=178,requests.memory=546Gi,requests.nvidia.com/gpu=16": (
        "tests/test_containers.py adds the pods up; not run: no Kubernetes here"
    ),
    "export RAY_USE_TLS=1": "not run: needs certificates",
    "export RAY_TLS_SERVER_CERT=/etc/ray/tls.crt": "not run: needs certificates",
    "export RAY_TLS_SERVER_KEY=/etc/ray/tls.key": "not run: needs certificates",
    "export RAY_TLS_CA_CERT=/etc/ray/ca.crt": "not run: needs certificates",
    'export MLFLOW_FLASK_SERVER_SECRET_KEY="$(openssl rand -hex 32)"': "tests/stages/test_tracking_servers.py sets it",
    "read -rs MLFLOW_AUTH_ADMIN_PASSWORD && export MLFLOW_AUTH_ADMIN_PASSWORD": "tests/stages/test_tracking_servers.py",
    "mlflow server --app-name basic-auth --host 127.0.0.1 --port 5000": "tests/stages/test_tracking_servers.py",
    "docker build -t synthclones .": "tests/test_containers.py reads it; not run: no engine here",
    "docker build --target cpu -t synthclones-cpu .": "tests/test_containers.py reads it; not run: no engine here",
    "kubectl create secret generic synthclones-credentials --from-env-file=cluster.env": "not run: no Kubernetes here",
    "kubectl apply -k k8s/overlays/gke": "tests/test_containers.py reads the manifests; not run: no Kubernetes here",
    "kubectl create -k k8s/jobs": "tests/test_containers.py reads the manifests; not run: no Kubernetes here",
    "kubectl port-forward service/synthclones-head-svc 8265": "not run: no Kubernetes here",
}


def command_lines(text: str) -> list[str]:
    """The command lines of a document's bash blocks; a line that ends in a backslash goes on in the next."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.lstrip().startswith("#")]


EVERY_LINE = sorted({line for path in DOCUMENTS for line in command_lines(path.read_text(encoding="utf-8"))})
PYTHON_LINE = re.compile(r"(?:\.venv/bin/)?python -m (?P<module>(?:jobs|tune)\.\w+)(?P<arguments>.*)")
OUR_LINES = [line for line in EVERY_LINE if PYTHON_LINE.fullmatch(line)]
MAKE_LINES = [line for line in EVERY_LINE if line.startswith("make ")]


def test_documents_have_commands() -> None:
    assert "make demo" in MAKE_LINES and "make test" in MAKE_LINES and OUR_LINES


def test_every_line_is_known() -> None:
    assert [line for line in EVERY_LINE if line not in (*OUR_LINES, *MAKE_LINES, *OTHER_LINES)] == []


def test_no_line_of_the_table_is_gone_from_the_documents() -> None:
    assert [line for line in OTHER_LINES if line not in EVERY_LINE] == []


def module_command(module: str) -> click.Command:
    """The click command that `python -m MODULE` runs."""
    found = importlib.import_module(module).main
    assert isinstance(found, click.Command), module
    return found


@pytest.mark.parametrize("line", OUR_LINES)
def test_our_command_runs(
    line: str,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    matched = PYTHON_LINE.fullmatch(line)
    assert matched is not None
    command = module_command(matched["module"])
    arguments = shlex.split(matched["arguments"], comments=True)
    if "--config" in arguments:  # the command before it would have written this file
        config = tmp_path_factory.mktemp("config") / "config.yaml"
        config.write_text("{}")
        arguments[arguments.index("--config") + 1] = str(config)
    monkeypatch.chdir(tmp_path)  # a relative --root of the line falls here
    if "--help" not in arguments:
        command.make_context(matched["module"], list(arguments))  # --help alone would let wrong options pass
        has_dry_run = any("--dry-run" in option.opts for option in command.params)
        # Before the `--` behind which jobs.submit has another command.
        arguments.insert([*arguments, "--"].index("--"), "--dry-run" if has_dry_run else "--help")
    assert command.main(arguments, prog_name=matched["module"], standalone_mode=False) in (None, 0)
    assert capsys.readouterr().out.strip()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", sorted({line.split()[2] for line in OUR_LINES}))
def test_our_command_is_run_for_real_by_its_test(module: str) -> None:
    test = REPOSITORY / RUN_BY[module]
    assert test.exists(), f"{RUN_BY[module]} is not there"
    assert module in test.read_text(encoding="utf-8"), f"{RUN_BY[module]} does not run {module}"


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("line", MAKE_LINES)
def test_make_knows_the_target(line: str) -> None:
    done = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_commands_that_make_the_large_sets_say_how_many_gpus_they_take() -> None:
    """The presets ask for one, and docs/clusters.md prices eight."""
    manifest = (REPOSITORY / "k8s" / "jobs" / "generate.yaml").read_text(encoding="utf-8")
    lines = [*EVERY_LINE, *(line for line in manifest.splitlines() if "entrypoint:" in line)]
    making = [
        line for line in lines if re.search(r"(jobs\.(generate|plan|study)|tune\.scaling) --preset imagenet", line)
    ]
    assert len(making) >= 9 and [line for line in making if "--set generate.num_actors=8" not in line] == []


def test_the_probes_of_the_large_models_look_for_one_and_the_same_training() -> None:
    probing = [line for line in EVERY_LINE if "jobs.transfer --preset imagenet" in line]
    assert len(probing) == 2 and [line for line in probing if "--set train=@paper_rn50" not in line] == []


def test_the_token_of_a_hub_is_told_where_its_models_are() -> None:
    assert "`HF_TOKEN`" in (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_bash_blocks_are_read_as_a_user_reads_them() -> None:
    text = "```bash\n# why\nmake  demo\npython -m jobs.x \\\n  --set a=1\n```\n```text\nnot a command\n```\n"
    assert command_lines(text) == ["make demo", "python -m jobs.x --set a=1"]

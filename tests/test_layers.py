"""The shape of the code, read from its imports: pipeline.core <- pipeline.stages <- pipeline.cli <- jobs, tune."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
PACKAGES = ("pipeline", "jobs", "tune")
MAX_LINES = 300

# For the modules below each prefix: the prefixes they may not import.
FORBIDDEN = {
    "pipeline.core": ("ray", "mlflow", "pipeline.stages", "pipeline.cli", "jobs", "tune"),
    "pipeline.stages": ("pipeline.cli", "jobs", "tune"),
    "pipeline.cli": ("jobs", "tune"),
    "jobs": ("tune",),
    "tune": ("jobs",),
}
# The only modules that may import each of these, heavy enough or stateful enough to have few owners.
OWNERS = {"mlflow": ("pipeline.stages.tracking", "pipeline.stages.run_handle", "pipeline.stages.model_registry")}
RAY_OWNER = "pipeline.stages.runtime"


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def is_below(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, at its top or inside a function; `from a import b` gives both `a` and `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import at line {node.lineno}"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def broken_rules(module: str, code: str) -> list[str]:
    """What a module's code imports or calls against the rules, one line each."""
    tree = ast.parse(code)
    broken = []
    for imported in sorted(set(imports(tree))):
        for prefix, banned in FORBIDDEN.items():
            if is_below(module, prefix) and any(is_below(imported, name) for name in banned):
                broken.append(f"{module} imports {imported}")
        for name, owners in OWNERS.items():
            if is_below(imported, name) and module not in owners and f"{module} imports {imported}" not in broken:
                broken.append(f"{module} imports {imported}")
        if imported == "ray.init" and module != RAY_OWNER:
            broken.append(f"{module} imports {imported}")
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    used = {f"{node.value.id}.{node.attr}" for node in attributes if isinstance(node.value, ast.Name)}
    if module != RAY_OWNER:
        broken += [f"{module} calls {name}" for name in sorted(used & {"ray.init", "ray.shutdown"})]
    return broken


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_module_keeps_to_its_layer(path: Path) -> None:
    assert broken_rules(module_name(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("pipeline.core.x", "import ray"),
        ("pipeline.core.x", "import ray.data as rd"),
        ("pipeline.core.x", "def f():\n    from ray import data"),
        ("pipeline.core.x", "import mlflow"),
        ("pipeline.core.x", "from pipeline import stages"),
        ("pipeline.core.x", "from pipeline.stages.generate import generate"),
        ("pipeline.core.x", "from pipeline.cli import run_job"),
        ("pipeline.stages.x", "from mlflow.tracking import MlflowClient"),
        ("pipeline.stages.x", "import jobs.train"),
        ("pipeline.stages.x", "import ray\nray.init()"),
        ("pipeline.stages.x", "import ray\nray.shutdown()"),
        ("jobs.x", "from tune import sweep"),
        ("jobs.x", "from ray import init"),
        ("jobs.x", "import mlflow"),
        ("tune.x", "from jobs.train import main"),
    ],
)
def test_each_rule_can_be_broken(module: str, code: str) -> None:
    assert len(broken_rules(module, code)) >= 1


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("pipeline.core.x", "import torch\nimport rayon"),
        ("pipeline.stages.x", "import ray\nfrom pipeline.core.config import RunConfig"),
        ("pipeline.stages.tracking", "import mlflow"),
        ("pipeline.stages.runtime", "import ray\nray.init()\nray.shutdown()"),
        ("jobs.x", "from ray.tune import Tuner\nfrom pipeline.cli import run_job"),
    ],
)
def test_allowed_code_breaks_no_rule(module: str, code: str) -> None:
    assert broken_rules(module, code) == []


def test_no_drawer_and_no_name_that_hides_a_library() -> None:
    assert [str(path) for path in sources() if path.name in ("utils.py", "ray.py", "mlflow.py", "types.py")] == []


def test_no_file_is_too_long_to_read() -> None:
    every = [*sources(), *sorted((REPOSITORY / "tests").rglob("*.py"))]
    lengths = {str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8").count("\n") for path in every}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_every_package_has_files_and_the_tests_have_no_init() -> None:
    assert all((REPOSITORY / package / "__init__.py").exists() for package in PACKAGES)
    assert list((REPOSITORY / "tests").rglob("__init__.py")) == []  # --import-mode=importlib: tests share file names


def test_drivers_start_without_the_libraries_of_their_workers() -> None:
    """Four processes of a training import its driver's modules one after the other; torch alone takes each seconds."""
    code = (
        "import sys, pipeline.stages.generate, pipeline.stages.side_by_side, pipeline.stages.chain\n"
        "print(sorted({'diffusers', 'mlflow', 'torchmetrics', 'torchvision', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

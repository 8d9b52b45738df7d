from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests import dependency_audit
from tests.dependency_audit import audit

CLEAN = {"name": "ray", "version": "2.60.0", "vulns": []}
HOLE = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["3.0"], "description": ""}
SKIPPED = {"name": "ray", "skip_reason": "Dependency not found on PyPI"}


def says(text: str, stream: str = "stdout", code: int = 0) -> list[str]:
    """A program in pip-audit's place."""
    return [sys.executable, "-c", f"import sys; sys.{stream}.write({text!r}); sys.exit({code})"]


def report(*packages: dict[str, Any]) -> list[str]:
    return says(json.dumps({"dependencies": packages, "fixes": []}), code=int(any(p.get("vulns") for p in packages)))


def test_nothing_found_passes() -> None:
    assert audit(report(CLEAN, SKIPPED)) == (0, "audit: 1 of 2 packages, nothing found")


def test_a_finding_fails_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report(CLEAN, {**CLEAN, "vulns": [HOLE]})
    assert audit(found) == (1, "error: ray 2.60.0: PYSEC-1, mended in ['3.0']")
    monkeypatch.setattr(dependency_audit, "IGNORED", {"CVE-1": "a part that is not used"})
    assert audit(found)[0] == 0


@pytest.mark.parametrize(
    "program",
    [
        report(SKIPPED, SKIPPED),
        says("Traceback\nrequests.exceptions.ConnectionError: Max retries exceeded", "stderr", 1),
        [sys.executable, "-c", "import time; time.sleep(60)"],
    ],
    ids=["a mirror without advisories", "no network", "silence"],
)
def test_no_answer_passes_with_a_line(program: list[str]) -> None:
    code, line = audit(program, timeout_s=2)
    assert code == 0 and line.startswith("audit: no answer from the advisory service") and "\n" not in line


def test_a_lock_that_cannot_be_read_fails() -> None:
    code, line = audit(says("ERROR: requirement ray is not pinned", "stderr", 1))
    assert (code, line) == (1, "error: pip-audit ended with 1: ERROR: requirement ray is not pinned")

"""Known holes in the locked packages, by pip-audit: `make audit`. A finding fails, a silent service does not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence

IGNORED: dict[str, str] = {}
"""Advisory -> why it does not concern this project. Nothing else is let through."""

PIP_AUDIT = [
    sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--requirement", "requirements.lock",
    "--format", "json", "--progress-spinner", "off",
]  # fmt: skip
TIMEOUT_S = 120
SILENT = re.compile(r"ConnectionError|Timeout|ServiceError|HTTPError|NameResolutionError")


def audit(program: Sequence[str] = PIP_AUDIT, timeout_s: float = TIMEOUT_S) -> tuple[int, str]:
    """Exit code and lines: 0 when nothing was found or nobody answered, 1 for a finding or when it cannot be read."""
    try:
        done = subprocess.run(program, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return 0, f"audit: no answer from the advisory service within {timeout_s:g} s; nothing was audited"
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        if SILENT.search(last):
            return 0, f"audit: no answer from the advisory service ({last[:120]}); nothing was audited"
        return 1, f"error: pip-audit ended with {done.returncode}: {last}"
    known = [package for package in packages if "skip_reason" not in package]
    if not known:  # a mirror of PyPI without its advisories says "not found" for each
        return 0, f"audit: no answer from the advisory service for any of {len(packages)} packages; nothing was audited"
    found = [
        f"error: {package['name']} {package['version']}: {hole['id']}, mended in {hole['fix_versions'] or 'no version'}"
        for package in known
        for hole in package["vulns"]
        if not {hole["id"], *hole["aliases"]} & set(IGNORED)
    ]
    return (1, "\n".join(found)) if found else (0, f"audit: {len(known)} of {len(packages)} packages, nothing found")


if __name__ == "__main__":
    code, lines = audit()
    print(lines)
    sys.exit(code)

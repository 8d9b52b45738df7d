"""What is sent with a job to a cluster: a command that exists there, an id, and no secrets."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.core.config_loading import nearest
from pipeline.core.credentials import covered, is_secret_name, secrets_in
from pipeline.core.errors import InputError

SENT = (
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_S3_ENDPOINT_URL",
    "MLFLOW_TRACKING_URI",
)
"""The variables that go with every job, when they are set: where things are, never who may read them."""

# A URL's own names, `?token=` and the like, are `secrets_in`'s; its host and path may read like one: http://auth:5000.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,'\"\[\]{}]*")
_NAMED = r"(?P<name>[^\s/=:,;&?'\"\[\](){}]+)['\"]?\s*"
# NAME= wherever a name may begin, but no comparison of a template; NAME: only where YAML's keys stand: a prompt such as
# `a photo of a monkey: …` holds none.
_SETTING = re.compile(r"(?:^|(?<=[\s=:,;&?'\"\[({]))-{0,2}" + _NAMED + r"=(?=[^=])")
_KEY = re.compile(r"(?:^|[=,\[{\n])\s*(?:-\s+)*['\"]?" + _NAMED + r":(?=.)", re.DOTALL)
_OPTION = re.compile(r"-{1,2}(?P<name>[A-Za-z][A-Za-z0-9_-]*)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_MEND = (
    "whoever may open the cluster's dashboard can read what a job is sent with: give the nodes the variable "
    "(docs/clusters.md), and name it here with --secret"
)


def job_environment(environment: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The variables to send: those of `SENT` that are set, and the named ones.

    Raises:
        InputError: a named one is not set, or one of them is a secret by its name or holds one in a URL.
    """
    for name in names:
        if name not in environment:
            before, given, _ = name.partition("=")
            mend = "give its name, not its value" if given else "set it, or leave the option out"
            raise InputError(f"--env {before!r} is not set here; {mend}")
    chosen = {name: environment[name] for name in (*SENT, *names) if name in environment}
    for name, value in chosen.items():
        if is_secret_name(name) or secrets_in(value):
            raise InputError(f"{name} is, or holds, a secret, and is not sent: {_MEND}")
    return chosen


def entrypoint(words: Sequence[str], secrets: Sequence[str]) -> str:
    """The shell line that runs a command on the cluster, after a look that the named secrets are set there.

    Raises `InputError` for a name that no variable can have.
    """
    checks = []
    for name in secrets:
        if not _VARIABLE.fullmatch(name):
            before = name.partition("=")[0]
            shown = f" {before!r}" if _VARIABLE.fullmatch(before) else ""  # what is no name may be the secret itself
            raise InputError(f"--secret{shown} takes the name of an environment variable; give its name, not its value")
        checks.append(
            f'[ -n "${{{name}:-}}" ] || {{ echo "error: {name} is not set on this node of the cluster; set it where '
            'its nodes are described (docs/clusters.md)" >&2; exit 2; }; '
        )
    return "".join(checks) + ("exec " if checks else "") + shlex.join(words)


def check_command(words: Sequence[str], folder: Path) -> str:
    """The module that a command runs. Raises `InputError` for one that is no job of the folder that is sent."""
    if not words:
        raise InputError("no command; give it after --, e.g. jobs.submit -- python -m jobs.generate --preset fashion")
    if len(words) < 3 or words[0] not in ("python", "python3") or words[1] != "-m":
        raise InputError(
            f"{shlex.join(words[:3])!r} does not begin with `python -m MODULE`; give a job as it runs here"
        )
    for word in words:
        if secrets_in(word):
            raise InputError(f"the command holds a password or token in a URL, and is not sent: {_MEND}")
        for name in _names_in(word):
            if is_secret_name(name):
                raise InputError(f"the command holds the secret {name!r}, and is not sent: {_MEND}")
    known = {
        f"{package}.{path.stem}": path
        for package in ("jobs", "tune")
        for path in (folder / package).glob("*.py")
        if path.stem != "__init__"
    }
    if words[2] not in known:
        raise InputError(f"{folder} has no job {words[2]!r}{nearest(words[2], list(known))}")
    return words[2]


def _names_in(word: str) -> list[str]:
    """The names of what a word of a command sets: an option, `NAME=`, a key of a mapping."""
    option = _OPTION.fullmatch(word)
    text = _URL.sub("", word)
    found = [*_SETTING.finditer(text), *_KEY.finditer(text), *([option] if option else [])]
    return [match["name"] for match in found]


def shown_address(address: str) -> str:
    """An address of a cluster as people may see it: *** for a password or token, also where `http://` is forgotten."""
    return covered(address) if "://" in address else covered(f"http://{address}").removeprefix("http://")


def submission_id(words: Sequence[str], name: str | None) -> str:
    """The same for the same command and name, another one for others, e.g. `generate-0f3a…`; safe in a URL.

    Raises `InputError` for a name with other characters than letters, digits, `.`, `_` and `-`, or of more than 40.
    """
    if name is not None and not _NAME.fullmatch(name):
        raise InputError(f"--name {name!r} is not 1 to 40 letters, digits, '.', '_', '-'; give another one")
    digest = hashlib.sha256(json.dumps([name, list(words)]).encode()).hexdigest()[:12]
    return f"{name or words[2].rpartition('.')[2]}-{digest}"


def attempt_of(base: str, candidate: str | None) -> int | None:
    """Which run of a submission an id names: 1 for the id itself, N for `<id>-N`, None for another submission."""
    matched = re.fullmatch(rf"{re.escape(base)}(?:-(\d+))?", candidate or "")
    return int(matched[1] or 1) if matched else None

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.flatten import flatten
from pipeline.core.submission import (
    attempt_of,
    check_command,
    entrypoint,
    job_environment,
    shown_address,
    submission_id,
)
from tests.conftest import REPOSITORY

WORDS = ["python", "-m", "jobs.generate", "--preset", "fashion"]


def test_only_places_go_with_a_job_and_what_is_named() -> None:
    here = {"AWS_REGION": "x", "AWS_SECRET_ACCESS_KEY": "s", "HOME": "/root", "COLOUR": "red"}
    assert job_environment(here, []) == {"AWS_REGION": "x"}
    assert job_environment(here, ["COLOUR"]) == {"AWS_REGION": "x", "COLOUR": "red"}


@pytest.mark.parametrize(
    "name",
    ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "MY_API_KEY", "db_auth"],
)
def test_a_secret_is_not_sent_and_its_value_not_said(name: str) -> None:
    with pytest.raises(InputError, match=f"^{name} is, or holds, a secret") as caught:
        job_environment({name: "hush-7f3c"}, [name])
    assert "hush-7f3c" not in str(caught.value)


def test_a_password_in_a_url_is_not_sent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as caught:
        job_environment({"MLFLOW_TRACKING_URI": "http://me:hush@host"}, [])
    assert "hush" not in str(caught.value)
    with pytest.raises(InputError, match="password or token in a URL") as caught:
        check_command([*WORDS, "--set", "tracking.uri=http://me:hush@host"], REPOSITORY)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql+psycopg://db/m?user=me&password=hush",
        "http://host/?token=hush",
        "https://hush@host",
        "https://hush:x-oauth-basic@host",
        "postgresql://me:hu/hush@db/m",
    ],
)
def test_no_form_of_a_secret_in_a_uri_is_sent(uri: str) -> None:
    for send in (
        lambda: job_environment({"MLFLOW_TRACKING_URI": uri}, []),
        lambda: check_command([*WORDS, f"--set=tracking.uri={uri}"], REPOSITORY),
        lambda: check_command([*WORDS, "--root", uri], REPOSITORY),
    ):
        with pytest.raises(InputError, match="is not sent") as caught:
            send()
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["--api-token=hush"],
        ["--api-token", "hush"],
        ["--set", "hub.password=hush"],
        ["--set", "hub.password = hush"],
        ["--set=hub.password=hush"],
        ["--set", "hub={password: hush}"],
        ["--set", "hub={user: me, 'password': hush}"],
        ["--set", 'hub={"user":"me","password":"hush"}'],
        ["--set=hub={uri: http://host,password: hush}"],
        ["--set", "hub=password: hush"],
        ["--set", "hub=\n- user: me\n  password: hush"],
    ],
)
def test_a_secret_by_its_name_in_a_command_is_not_sent(words: list[str]) -> None:
    with pytest.raises(InputError, match="holds the secret '(api-token|(hub\\.)?password)'") as caught:
        check_command([*WORDS, *words], REPOSITORY)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "word",
    [
        "http://auth:5000/key=1/mlflow",
        "s3://bucket/monkey=1/token:x",
        "tracking.uri=http://keycloak-auth:5000/?a=1",
        "train.optimizer={name: sgd, lr: 0.1}",
        "--set=train.optimizer=lamb",
        "recipe.prompt=a photo of a monkey: {{ c }}",
        "recipe.prompt=[{template: 'a {{ c }}, such as a turkey', weight: 1}]",
        "recipe.prompt={% if c.name == 'donkey' %}a donkey{% endif %}",
        "arn:aws:secretsmanager:us-west-2:1:x",
    ],
)
def test_what_only_looks_like_a_secret_is_sent(word: str) -> None:
    check_command([*WORDS, "--set", word], REPOSITORY)


def test_every_option_and_setting_of_ours_can_be_sent() -> None:
    settings = flatten(RunConfig().model_dump(mode="json"))
    for path in sorted((REPOSITORY / "jobs").glob("[a-z]*.py")) + sorted((REPOSITORY / "tune").glob("[a-z]*.py")):
        if path.stem == "submit":  # its --secret takes a name
            continue
        command = importlib.import_module(f"{path.parent.name}.{path.stem}").main
        options = [option for parameter in command.params for option in parameter.opts if option.startswith("-")]
        check_command([*WORDS, *options, *(f"{name}=1" for name in settings)], REPOSITORY)


def test_an_unset_variable_is_refused() -> None:
    with pytest.raises(InputError, match="--env 'COLOUR' is not set here"):
        job_environment({}, ["COLOUR"])


def test_a_value_in_place_of_a_name_is_not_said() -> None:
    for refused in (lambda: job_environment({}, ["COLOUR=hush-1"]), lambda: entrypoint(["echo"], ["COLOUR=hush-1"])):
        with pytest.raises(InputError, match="'COLOUR'.* its name, not its value") as caught:
            refused()
        assert "hush" not in str(caught.value)
    with pytest.raises(InputError, match="its name, not its value") as caught:
        entrypoint(["echo"], ["hush-1"])
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://host:8265", "http://host:8265"),
        ("http://me:hush@host:8265", "http://***@host:8265"),
        ("me:hush@host:8265", "***@host:8265"),
        ("hush@host", "***@host"),
        ("http://host/?token=hush", "http://host/?token=***"),
        ("127.0.0.1:8265", "127.0.0.1:8265"),
    ],
)
def test_an_address_is_shown_without_its_password(address: str, shown: str) -> None:
    assert shown_address(address) == shown


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no command"),
        (["jobs.generate"], "does not begin with `python -m MODULE`"),
        (["python", "-m", "jobs.genrate"], "did you mean 'jobs.generate'"),
        (["python", "-m", "pip"], "has no job 'pip'"),
    ],
)
def test_a_command_that_is_no_job_is_found_before_it_is_sent(words: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_command(words, REPOSITORY)


def test_the_id_is_the_commands_and_the_names() -> None:
    assert submission_id(WORDS, None) == submission_id(list(WORDS), None) != submission_id([*WORDS, "--json"], None)
    assert submission_id(WORDS, "night") != submission_id(WORDS, "day")
    assert submission_id(WORDS, None).startswith("generate-") and submission_id(WORDS, "night").startswith("night-")
    for name in ("", "a/b", "a b", "../a", "x" * 41):
        with pytest.raises(InputError, match="--name"):
            submission_id(WORDS, name)


def test_attempts_are_counted_by_their_ids() -> None:
    cases = {"a-1f": 1, "a-1f-2": 2, "a-1f-12": 12, "a-1f-x": None, "b-a-1f": None, "a-1f2": None, None: None}
    assert {candidate: attempt_of("a-1f", candidate) for candidate in cases} == cases


@settings(max_examples=50)  # each starts a shell
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_any_word_reaches_the_program_as_it_is(words: list[str]) -> None:
    line = entrypoint(["printf", "%s\\0", *words], [])
    done = subprocess.run(line, shell=True, capture_output=True, check=True)
    assert done.stdout == b"".join(word.encode() + b"\0" for word in words)


def test_a_missing_secret_ends_the_job_with_its_name() -> None:
    line = entrypoint(["echo", "worked"], ["HUSH"])
    without = subprocess.run(line, shell=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert (without.returncode, without.stdout) == (2, "") and without.stderr.startswith("error: HUSH is not set")
    given_it = subprocess.run(
        line, shell=True, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "HUSH": "x"}
    )
    assert (given_it.returncode, given_it.stdout) == (0, "worked\n")
    with pytest.raises(InputError, match="its name, not its value"):
        entrypoint(["echo"], ["HUSH=x; rm"])

"""Secrets of URIs, by properties over made-up ones."""

from __future__ import annotations

from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.credentials import covered, covered_in, is_secret_name, secrets_in

SECRETS = st.text("abcXYZ019 :/?#@&=%+é;", min_size=4, max_size=12).map(lambda text: f"hush{text}hush")
SCHEMES = st.sampled_from(["http", "https", "postgresql+psycopg", "mysql", "s3", "HTTPS"])
HOSTS = st.sampled_from(["host", "db.example.org:5432", "[::1]:5000", "10.0.0.1"])
TAILS = st.sampled_from(["", "/", "/m", "/x@y", "/a/b?user=me", "/m?a=1&b=x@y"])
NAMES = st.sampled_from(["password", "token", "access_token", "api-key", "X-Amz-Signature", "sig", "pass%77ord", "pwd"])


@given(SCHEMES, st.sampled_from(["me", "", "a.b"]), SECRETS, HOSTS, TAILS)
def test_a_password_before_the_host_is_found_and_covered(
    scheme: str, user: str, secret: str, host: str, tail: str
) -> None:
    uri = f"{scheme}://{user}:{quote(secret, safe='')}@{host}{tail}"
    assert secrets_in(uri)
    for text in (covered(uri), covered_in(f"cannot open {uri}: login with {secret} refused", uri)):
        assert quote(secret, safe="") not in text and secret not in text
    assert covered(uri).endswith(f"***@{host}{tail}")


@given(SCHEMES, HOSTS, NAMES, SECRETS, st.sampled_from(["?", "?user=me&", "#", "?a=1;"]))
def test_a_secret_in_the_query_is_found_and_covered(
    scheme: str, host: str, name: str, secret: str, before: str
) -> None:
    uri = f"{scheme}://{host}/m{before}{name}={quote(secret, safe='')}&last=1"
    assert [unquote(found) for found in secrets_in(uri)] == [secret]
    assert covered(uri) == f"{scheme}://{host}/m{before}{name}=***&last=1"


@given(st.sampled_from(["http", "https"]), st.text("abc019_-", min_size=1), HOSTS, TAILS)
def test_a_token_in_place_of_a_user_is_found(scheme: str, token: str, host: str, tail: str) -> None:
    assert secrets_in(f"{scheme}://{token}@{host}{tail}") == [token]


@given(SCHEMES, HOSTS, TAILS)
def test_a_uri_without_a_secret_stays_as_it_is(scheme: str, host: str, tail: str) -> None:
    uri = f"{scheme}://{host}{tail}"
    if not (
        scheme in ("postgresql+psycopg", "mysql", "s3") and "@" in tail and ":" in host
    ):  # SQLAlchemy reads a password
        assert secrets_in(uri) == [] and covered(uri) == uri


@given(st.text())
def test_any_text_is_covered_once(text: str) -> None:
    assert covered(covered(text)) == covered(text)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:se%40cret@db:5432/mlflow", "postgresql://me:***@db:5432/mlflow"),
        ("postgresql://me@db/mlflow", "postgresql://me@db/mlflow"),
        ("mysql://me:a/b?c@db/x", "mysql://me:***@db/x"),
        ("https://user:pass@host/x@y", "https://***@host/x@y"),
        ("http://me:p@ss@host", "http://***@host"),
        ("http://me:hu/sh@host", "http://***@host"),
        ("sqlite:////a:b@c/x.db", "sqlite:////a:b@c/x.db"),
    ],
)
def test_what_people_see(uri: str, shown: str) -> None:
    assert covered(uri) == shown


def test_an_error_that_quotes_the_password_alone() -> None:
    uri = "postgresql://me:se%40cret@db:5432/mlflow"
    assert covered_in("login of me with se@cret failed", uri) == "login of me with *** failed"


def test_names_of_secrets() -> None:
    secret = ["HF_TOKEN", "db_auth", "AWS_ACCESS_KEY_ID", "api-key", "Authorization", "pass", "PGPASSWORD"]
    plain = ["tokenizer", "author", "sslkey", "passfile", "num_tokenized", "design", "seed"]
    assert [name for name in secret + plain if is_secret_name(name)] == secret

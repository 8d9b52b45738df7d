"""Passwords and tokens in URIs: in front of the host and in the query. One place finds them for all guards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote, unquote_plus

MASK = "***"

_NAME = re.compile(
    r"SECRET|TOKEN(?!IZ)|PASS(WORD|WD|PHRASE)?$|PASSWORD|PWD$|CREDENTIAL|(?<!SSL)KEY(_?ID)?$|AUTH(?!ORS?$)|SIG(NATURE)?$",
    re.IGNORECASE,
)
# SQLAlchemy takes any character but "@" for a password, so "/" may stand in one; HTTP ends the host's part there, and
# what follows a port is a path. The last "@" before the path ends the password.
_AFTER_SLASHES = r"(?P<user>[^:/?#@\s\[]*)(?::(?P<password>{port}[^@\s]*(?:@[^@/?#\s]*)*))?@"
_HTTP = re.compile(r"https?://" + _AFTER_SLASHES.format(port=r"(?!\d*(?:[/?#\s]|$))"), re.IGNORECASE)
_OTHER = re.compile(r"(?<!http)(?<!https)://" + _AFTER_SLASHES.format(port=""), re.IGNORECASE)
_QUERY = re.compile(r"[?&;#](?P<name>[^=&#;\s]+)=(?=(?P<value>[^&#\s]+))")


def is_secret_name(name: str) -> bool:
    """Whether what has this name (a variable, an option, a key of a query) is a secret: HF_TOKEN, api-key, password."""
    return bool(_NAME.search(unquote(name).replace("-", "_")))


def secrets_in(text: str) -> list[str]:
    """The secrets of the URIs in a text, as they are written there (so percent-encoded).

    A password before the host is one; in http(s), where it may be a token, so is a user's name. A database's user
    without a password is none.
    """
    return [text[start:stop] for start, stop in _spans(text)]


def covered(text: str) -> str:
    """The text with *** in place of each secret of `secrets_in`."""
    parts, end = [], 0
    for start, stop in sorted(_spans(text)):
        if start >= end:
            parts += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*parts, text[end:]])


def covered_in(text: str, uri: str) -> str:
    """A text, as of an error, without the secrets of a URI that it may quote whole, in part or decoded."""
    text = covered(text.replace(uri, covered(uri)))
    for secret in sorted(secrets_in(uri), key=len, reverse=True):
        password = secret.partition(":")[2]  # of http's user:password
        for form in (secret, unquote(secret), unquote_plus(secret), password, unquote(password)):
            text = text.replace(form, MASK) if form else text
    return text


def _spans(text: str) -> Iterator[tuple[int, int]]:
    for found in _HTTP.finditer(text):
        yield found.start("user"), found.end() - 1
    for found in _OTHER.finditer(text):
        if found["password"]:
            yield found.span("password")
    for found in _QUERY.finditer(text):
        if is_secret_name(found["name"]):
            yield found.span("value")

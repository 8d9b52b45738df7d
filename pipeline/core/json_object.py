"""JSON files that the project wrote itself: an object each, with keys that are there unless the file is damaged."""

import json
from typing import Any

from pipeline.core.errors import WorkError


class JsonObject(dict[str, Any]):
    """The object of a JSON file. Asking for a key that it lacks raises `WorkError`: where, which, and the mend."""

    def __init__(self, values: dict[str, Any], uri: str) -> None:
        super().__init__(values)
        self.uri = uri

    def __missing__(self, key: str) -> Any:
        raise _damaged(self.uri, f"no {key!r}")


def parse_json_object(data: bytes, uri: str) -> JsonObject:
    """The object in a JSON file's bytes. Raises `WorkError` when they are no JSON, no text or no object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:  # no JSON, or no text; brackets without end
        raise _damaged(uri, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(uri, "no mapping")
    return JsonObject(found, uri)


def _damaged(uri: str, why: str) -> WorkError:
    return WorkError(f"{uri} is damaged ({why}); remove it and run the job that made it again")

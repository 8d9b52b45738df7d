"""JSON files that the project wrote itself: an object each, with keys that are there unless the file is damaged."""

import json
from typing import Any

from pipeline.core.errors import WorkError

MEND = "remove it and run the job that made it again"


class JsonObject(dict[str, Any]):
    """The object of a JSON file. Asking for a key that it lacks raises `WorkError`: where, which, and the mend."""

    def __init__(self, values: dict[str, Any], uri: str, mend: str = MEND) -> None:
        super().__init__(values)
        self.uri = uri
        self.mend = mend

    def __missing__(self, key: str) -> Any:
        raise _damaged(self.uri, f"no {key!r}", self.mend)


def parse_json_object(data: bytes, uri: str, mend: str = MEND) -> JsonObject:
    """The object in a JSON file's bytes. Raises `WorkError` with the mend when they are none."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:  # no JSON, or no text; brackets without end
        raise _damaged(uri, str(error), mend) from error
    if not isinstance(found, dict):
        raise _damaged(uri, "no mapping", mend)
    return JsonObject(found, uri, mend)


def _damaged(uri: str, why: str, mend: str) -> WorkError:
    return WorkError(f"{uri} is damaged ({why}); {mend}")

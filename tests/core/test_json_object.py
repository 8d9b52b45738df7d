"""JSON files of the project: objects whose missing keys are damage."""

import pickle

import pytest

from pipeline.core.errors import WorkError
from pipeline.core.json_object import parse_json_object


@pytest.mark.parametrize(
    "data",
    [b"[1]", b"null", b"3", b'"text"', b"{", b"\xff", b"", b"[" * 100_000],
    ids=["list", "null", "number", "text", "half", "no text", "empty", "deep"],
)
def test_what_is_no_object_is_damage_with_the_address_and_the_mend(data: bytes) -> None:
    with pytest.raises(WorkError, match=r"^s3://b/m\.json is damaged \(.+\); remove it and run the job that made it"):
        parse_json_object(data, "s3://b/m.json")


def test_a_missing_key_is_damage_when_it_is_asked_for() -> None:
    manifest = parse_json_object(b'{"rows": 2}', "s3://b/m.json")
    assert manifest["rows"] == 2 and manifest.get("shards") is None and "shards" not in manifest
    with pytest.raises(WorkError, match=r"s3://b/m\.json is damaged \(no 'shards'\)"):
        manifest["shards"]


def test_a_file_may_have_a_mend_of_its_own() -> None:
    with pytest.raises(WorkError, match=r"\(no mapping\); begin anew$"):
        parse_json_object(b"[]", "m.json", "begin anew")
    with pytest.raises(WorkError, match=r"\(no 'rows'\); begin anew$"):
        parse_json_object(b"{}", "m.json", "begin anew")["rows"]


def test_an_object_is_the_same_on_another_process() -> None:
    sent = pickle.loads(pickle.dumps(parse_json_object(b'{"rows": 2}', "s3://b/m.json")))
    assert sent == {"rows": 2}
    with pytest.raises(WorkError, match=r"s3://b/m\.json"):
        sent["shards"]

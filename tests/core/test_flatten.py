from pipeline.core.flatten import flatten, without_credentials


def test_names_are_dotted_and_keep_their_order():
    assert list(flatten({"b": {"y": 1, "x": {"z": [1, {"k": 2}]}}, "a": None}).items()) == [
        ("b.y", 1),
        ("b.x.z", [1, {"k": 2}]),
        ("a", None),
    ]


def test_credentials_of_a_uri_are_hidden():
    assert without_credentials("https://user:pass@host/x@y") == "https://…@host/x@y"
    assert without_credentials("sqlite:////a@b/c") == "sqlite:////a@b/c"
    assert without_credentials(5) == "5"

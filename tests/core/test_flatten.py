from pipeline.core.flatten import flatten


def test_names_are_dotted_and_keep_their_order():
    assert list(flatten({"b": {"y": 1, "x": {"z": [1, {"k": 2}]}}, "a": None}).items()) == [
        ("b.y", 1),
        ("b.x.z", [1, {"k": 2}]),
        ("a", None),
    ]

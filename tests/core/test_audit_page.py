import numpy as np

from pipeline.core.audit import ClipRows
from pipeline.core.audit_page import audit_picture, complaints
from pipeline.core.config import RecipeConfig
from pipeline.core.images import encode_image
from tests.audit_columns import columns


def test_what_is_said_against_an_image_names_the_reason():
    clip = ClipRows(
        labels=np.array([0, 0, 1]),
        indices=np.array([0, 1, 2]),
        best=np.array([0, 1, 1]),
        own_score=np.array([0.31, 0.12, 0.4], np.float32),
        best_score=np.array([0.31, 0.25, 0.4], np.float32),
        domain=np.array([0, 1, 0]),
        vector_sums=np.zeros((2, 2)),
    )
    near = np.array([True, False, False])
    found = complaints(columns([0, 0, 1], [1, 2, 3]), near, clip, ["shirt", "<b>coat"])
    assert found == {
        (0, 0): ["near-duplicate"],
        (0, 1): ["CLIP: rather <b>coat (0.250 against 0.120)", "CLIP: drawing, not photo"],
    }
    assert complaints(columns([0, 0, 1], [1, 2, 3]), near, None, ["a", "b"]) == {(0, 0): ["near-duplicate"]}


def test_flagged_and_failed_rows_are_frames_and_never_pictures():
    data = encode_image(np.zeros((8, 8, 3), np.uint8), RecipeConfig())
    row = {
        "class_name": "shirt", "prompt": "a shirt", "seed": 7, "image_id": 3, "truncated": False, "token_count": 5,
        "image": {"bytes": data}, "reason": None,
    }  # fmt: skip
    shown = audit_picture({**row, "status": "ok"}, ["near-duplicate"])
    assert shown.source.startswith("data:image/png") and shown.is_wrong and shown.caption[0] == "near-duplicate"
    plain = audit_picture({**row, "status": "blank"}, [])
    assert plain.source and not plain.is_wrong and plain.caption[0] == "a shirt"
    for status in ("nsfw", "failed"):
        hidden = audit_picture({**row, "status": status, "reason": "why"}, [])
        assert hidden.source == "" and hidden.frame == f"{status}: why"

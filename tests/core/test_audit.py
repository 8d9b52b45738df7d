import imagehash
import numpy as np
import pytest

from pipeline.core.audit import (
    ClipRows,
    bits_of,
    class_numbers,
    hamming_blocks,
    hash_numbers,
    totals,
    worst_first,
)
from pipeline.core.transfer_config import AuditConfig
from tests.audit_columns import columns


def test_distances_are_those_of_imagehash(monkeypatch):
    monkeypatch.setattr("pipeline.core.audit.BLOCK_ROWS", 3)
    hashes = np.random.default_rng(0).integers(0, 1 << 64, 8, dtype=np.uint64)
    known = [imagehash.hex_to_hash(f"{value:016x}") for value in hashes]
    found = np.concatenate([distances for _, distances in hamming_blocks(hashes)])
    for i in range(8):
        assert found[i, i] == np.inf
        assert [int(found[i, j]) for j in range(8) if j != i] == [known[i] - known[j] for j in range(8) if j != i]
    assert bits_of(np.array([0, 2**64 - 1], np.uint64)).sum(1).tolist() == [0, 64]


def test_near_duplicates_and_the_mean_distance_are_known():
    near, mean = hash_numbers(np.array([0b0, 0b1, 0b11111, 2**64 - 1], np.uint64), 2)
    assert near.tolist() == [True, True, False, False]
    assert mean == pytest.approx((1 + 5 + 64 + 4 + 63 + 59) / 6)
    assert hash_numbers(np.array([0, 0], np.uint64), 0)[0].tolist() == [True, True]
    assert hash_numbers(np.array([7], np.uint64), 64)[1] is None
    assert hash_numbers(np.array([7], np.uint64), 64)[0].tolist() == [False]


def test_a_class_counts_its_own_images_only():
    found, near = class_numbers(
        columns([0, 1, 0, 1, 1], [0, 0, 2**64 - 1, 1, None], ["ok", "ok", "blank", "nsfw", "failed"]),
        None,
        3,
        AuditConfig(),
    )
    assert near.tolist() == [False, True, False, True, False]  # the equal hash of class 0 is another class's
    assert found[0] == {
        "images": 2, "compared": 2, "near_duplicates": 0, "hash_distance": 64, "blank": 0.5, "nsfw": 0, "failed": 0,
    }  # fmt: skip
    assert found[1]["near_duplicates"] == 1 and found[1]["hash_distance"] == 1
    assert (found[1]["nsfw"], found[1]["failed"], found[1]["compared"]) == (
        pytest.approx(1 / 3),
        pytest.approx(1 / 3),
        2,
    )
    assert found[2]["images"] == 0 and found[2]["blank"] is None and found[2]["hash_distance"] is None


def test_only_the_first_images_are_compared():
    found, near = class_numbers(columns([0] * 4, [0, 2**64 - 1, 0, 0]), None, 1, AuditConfig(pairs_per_class=2))
    assert found[0]["compared"] == 2 and not near.any()


def clip_rows() -> ClipRows:
    """Two images of class 0 (one taken for 1, a drawing), two equal ones of class 1, none of class 2."""
    return ClipRows(
        labels=np.array([0, 0, 1, 1]),
        indices=np.array([0, 1, 0, 1]),
        best=np.array([0, 1, 1, 1]),
        own_score=np.array([0.3, 0.1, 0.4, 0.4], np.float32),
        best_score=np.array([0.3, 0.2, 0.4, 0.4], np.float32),
        domain=np.array([0, 1, 0, 0]),
        vector_sums=np.array([[1, 1], [1.2, 1.6], [0, 0]]),
    )


def test_clips_word_is_summed_up_by_class():
    found, near = class_numbers(columns([0, 0, 1, 1, 2], [1] * 5), clip_rows(), 3, AuditConfig())
    first, second, third = found
    assert (first["agreement"], first["non_natural"], first["clip_images"]) == (0.5, 0.5, 2)
    assert first["score"] == pytest.approx(0.2) and first["clip_distance"] == pytest.approx(1)
    assert first["domains"]["drawing"] == 0.5 and first["domains"]["text"] == 0
    assert second["agreement"] == 1 and second["clip_distance"] == pytest.approx(0, abs=1e-6)
    assert third["agreement"] is None and third["clip_images"] == 0
    whole = totals(columns([0, 0, 1, 1, 2], [1] * 5), near, found)
    assert whole["agreement"] == 0.75 and whole["images"] == 5 and whole["near_duplicates"] == 0.8


def test_classes_come_worst_first_by_their_mean_rank():
    numbers = [
        {"near_duplicates": 0.0, "hash_distance": 30.0, "blank": 0.0, "agreement": 0.9},
        {"near_duplicates": 0.9, "hash_distance": 10.0, "blank": 0.0, "agreement": 0.5},
        {"near_duplicates": 0.1, "hash_distance": 20.0, "blank": 0.0, "agreement": 0.1},
        {"near_duplicates": 0.0, "hash_distance": 30.0, "blank": 0.0, "agreement": None},
    ]
    order, badness = worst_first(numbers)
    assert order == [1, 2, 3, 0]
    assert badness[1] == pytest.approx((1 + 1 + 0.5) / 3)  # `blank` is the same for all, so it does not count
    assert badness[3] == pytest.approx((1 / 6 + 1 / 6 + 0.5) / 3)
    assert worst_first([{"blank": 0.0}, {"blank": 0.0}]) == ([0, 1], [0.0, 0.0])

"""What the driver keeps of CLIP's rows; the actors are tested with a whole audit."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.audit import class_numbers
from pipeline.core.errors import InputError, WorkError
from pipeline.core.transfer_config import AuditConfig
from pipeline.stages.audit_clip import gather
from tests.audit_columns import columns

CLASSES, EACH, WIDTH = 4, 250, 768


def vectors() -> Iterator[NDArray[np.float32]]:
    """Of length 1 around one direction, as CLIP's are; class by class."""
    draw = np.random.default_rng(0)
    for _ in range(CLASSES * EACH):
        vector = draw.standard_normal(WIDTH) + 2
        yield (vector / np.linalg.norm(vector)).astype(np.float32)


def judged() -> Iterator[dict[str, Any]]:
    """Rows as Ray Data hands them over."""
    for number, vector in enumerate(vectors()):
        label, index = divmod(number, EACH)
        scores = {"own_score": 0.1 + number, "best_score": 0.2 + number}
        yield {"labels": label, "indices": index, "best": 3, "domain": 1, **scores, "vector": vector}


def test_of_vectors_only_one_sum_per_class_is_kept() -> None:
    tracemalloc.start()
    found = gather(judged(), CLASSES)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    count = CLASSES * EACH
    assert peak < count * WIDTH * 4 / 4  # a quarter of the vectors
    kept = {name: values.nbytes for name, values in vars(found).items()}
    assert kept.pop("vector_sums") == CLASSES * WIDTH * 8 and sum(kept.values()) == 40 * count
    assert (found.labels[-1], found.indices[-1], found.best[0], found.domain[0]) == (3, EACH - 1, 3, 1)
    assert found.own_score[-1] == np.float32(count - 0.9) and found.best_score[0] == np.float32(0.2)
    numbers, _ = class_numbers(columns([0] * CLASSES, [1] * CLASSES), found, CLASSES + 1, AuditConfig())
    for label, of_class in enumerate(np.array(list(vectors()), np.float64).reshape(CLASSES, EACH, WIDTH)):
        cosines = of_class @ of_class.T
        mean = (cosines.sum() - np.trace(cosines)) / (EACH * (EACH - 1))
        assert numbers[label]["clip_distance"] == pytest.approx(1 - mean, abs=1e-6)
    assert numbers[CLASSES]["clip_images"] == 0


def test_an_actors_error_ends_it() -> None:
    for is_input, kind in ((True, InputError), (False, WorkError)):
        with pytest.raises(kind, match="no such model"):
            gather([{"error": "no such model", "is_input": is_input}], 2)
    assert len(gather([], 2).labels) == 0

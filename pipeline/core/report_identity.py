"""What a report IS: the models, the test sets as they lie there, and how they are scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.core.evaluate_config import EvaluateConfig
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.scoring import main_set
from pipeline.core.test_set_opening import OpenSet
from pipeline.core.test_sets import known_sets

REPORT_VERSION = 1
"""Part of a report's id: raise it when the numbers or the page change."""


def report_identity(
    settings: EvaluateConfig, sets: Mapping[str, OpenSet], models: Iterable[str]
) -> tuple[dict[str, Any], str]:
    """A report's identity, JSON-able, and its id: the name of its directory under `reports/`.

    What is not asked for is not in it, so older reports of one set are still found.

    Args:
        settings: how models are scored.
        sets: all that are there.
        models: their directories.
    """
    main = main_set(sets)
    identity: dict[str, Any] = {
        "report_version": REPORT_VERSION,
        "test_set": sets[main].images.fingerprint,
        "models": sorted(models),
        "num_calibration_bins": settings.num_calibration_bins,
    }
    others = {name: one.images.fingerprint for name, one in sets.items() if name != main}
    more = {
        "main": main if main in known_sets() else None,  # it decides which classes are masked
        "test_sets": others,
        "resize": settings.resize,
        "corruptions": settings.corruptions.identity if settings.corruptions.names else None,
    }
    identity |= {key: value for key, value in more.items() if value}
    return identity, content_hash(identity)[:ID_LENGTH]

"""Is one classifier better than another? Both saw the same test images, so every image is its own control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.text_table import markdown_cell, markdown_head, markdown_row

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
COLUMNS = (
    "", "top-1", "less the first", "95 % interval", "only the first is right", "only this one", "McNemar p",
)  # fmt: skip
"""Of the table for people."""

Correct = NDArray[np.bool_]
"""bool [K, N]: whether each of K models (seeds of one setting) is right on each of N images."""


def compare_pair(
    first: Correct, second: Correct, labels: NDArray[np.int64], num_classes: int, seed: int = 0
) -> dict[str, Any]:
    """Top-1 of two settings and their paired difference (second less first), JSON-able.

    The interval is a bootstrap over images (percentile): what other test images would change, not what other seeds
    would. McNemar's test (exact, two-sided) counts the images on which only one of the two is right; it speaks of two
    models, so it is None where a setting has several seeds. The classes' p-values are adjusted for their number
    (Benjamini and Hochberg's false discovery rate).

    Args:
        first: of the setting that is compared with.
        second: of the other one.
        labels: true classes int64 [N].
        num_classes: C.
        seed: of the bootstrap.

    Returns:
        top1 (of both, 0..1), difference, interval, only_first, only_second and p_value of McNemar, classes: one dict
        for each class with images (label, images, difference, p_value).
    """
    from scipy.stats import bootstrap, false_discovery_control

    assert first.shape[1] == second.shape[1] == len(labels), (first.shape, second.shape, len(labels))
    gain = second.mean(axis=0) - first.mean(axis=0)
    found = bootstrap(
        (gain,), np.mean, n_resamples=NUM_RESAMPLES, batch=100, confidence_level=CONFIDENCE, method="percentile",
        rng=np.random.default_rng(seed),
    )  # fmt: skip
    interval = found.confidence_interval
    single = len(first) == len(second) == 1
    present = [label for label in range(num_classes) if (labels == label).any()]
    p_values = [mcnemar(first[0], second[0], labels == label) if single else None for label in present]
    adjusted = false_discovery_control([p for p in p_values if p is not None]) if single else p_values
    only = [int((one & ~other).sum()) for one, other in ((first[0], second[0]), (second[0], first[0]))]
    return {
        "top1": [float(first.mean()), float(second.mean())],
        "difference": float(gain.mean()),
        "interval": [float(interval.low), float(interval.high)],
        "only_first": only[0] if single else None,
        "only_second": only[1] if single else None,
        "p_value": mcnemar(first[0], second[0], np.ones(len(labels), bool)) if single else None,
        "classes": [
            {
                "label": label,
                "images": int((labels == label).sum()),
                "difference": float(gain[labels == label].mean()),
                "p_value": None if p is None else float(p),
            }
            for label, p in zip(present, adjusted, strict=True)
        ],
    }


def mcnemar(first: Correct, second: Correct, among: Correct) -> float:
    """Exact two-sided p-value of McNemar's test on some images; 1 when the two never differ.

    Args:
        first: bool [N], right or not.
        second: the same of the other model.
        among: bool [N], images that count.
    """
    from scipy.stats import binomtest

    only_first = int((first & ~second & among).sum())
    only_second = int((~first & second & among).sum())
    if not only_first + only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second).pvalue)


def comparison_markdown(names: Sequence[str], classes: Sequence[str], pairs: Sequence[dict[str, Any]]) -> str:
    """The settings against the first one, and the classes that differ most.

    Args:
        names: of the settings, the first one is what the others are compared with.
        classes: names in label order.
        pairs: of `compare_pair`, one for each further setting.
    """
    text = [
        *markdown_head(COLUMNS),
        markdown_row([names[0], f"{pairs[0]['top1'][0]:.4f}", *[""] * 5]),
    ]
    for name, pair in zip(names[1:], pairs, strict=True):
        low, high = pair["interval"]
        only = ["" if pair[key] is None else f"{pair[key]:,}" for key in ("only_first", "only_second")]
        p_value = "" if pair["p_value"] is None else f"{pair['p_value']:.2g}"
        cells = [f"{pair['top1'][1]:.4f}", f"{pair['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}", *only, p_value]
        text.append(markdown_row([name, *cells]))
    for name, pair in zip(names[1:], pairs, strict=True):
        text += ["", f"{markdown_cell(name)} less {markdown_cell(names[0])}, by class:", ""]
        text += markdown_head(["class", "images", "difference", "p, adjusted"])
        for found in sorted(pair["classes"], key=lambda one: -abs(one["difference"])):
            p_value = "" if found["p_value"] is None else f"{found['p_value']:.2g}"
            name_of = classes[found["label"]]
            text.append(markdown_row([name_of, f"{found['images']:,}", f"{found['difference']:+.3f}", p_value]))
    return "\n".join(text) + "\n"

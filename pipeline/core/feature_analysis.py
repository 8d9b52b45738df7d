"""Four numbers of a feature set, in float64 and bounded memory. Formulas: docs/transfer.md, which says what is certain.

Z is the features with each row over its L2 norm, n rows and d columns. Nothing here holds more than d x d numbers, one
class's pairs of a block of rows, and a block of Z in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.linear_probe import normalised
from pipeline.core.transfer_config import AnalyzeConfig

BLOCK_ROWS = 2048
"""Rows in float64 at a time: 34 MB of 2,048 columns."""
MAX_TSNE_COMPONENTS = 50
"""Principal components that t-SNE reads, as its authors do it."""

Array = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class FeatureNumbers:
    """What is known of the features of one encoder on one set of images.

    Args:
        rows: n.
        width: d.
        sparsity: share of Z's entries below the threshold (negative ones too), 0..1.
        nonzero_mean: entries of a feature that are not exactly 0, mean over rows, before normalisation.
        intra_class_distance: mean over classes of the mean L2 distance between two rows of Z of that class, 0..2.
        classes_with_pairs: classes that count in it: those of at least two images.
        redundancy: mean of |Pearson's rho| over all pairs of columns of Z, a column with itself included, 0..1.
        constant_columns: that never change, so that rho is not defined; they are left out of `redundancy`.
        coding_length: 1/2 logdet(I + d / (n eps^2) Z^T Z), in nats.
    """

    rows: int
    width: int
    sparsity: float
    nonzero_mean: float
    intra_class_distance: float | None
    classes_with_pairs: int
    redundancy: float | None
    constant_columns: int
    coding_length: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def analyse(features: Array, labels: Labels, settings: AnalyzeConfig) -> FeatureNumbers:
    """All numbers of features float32 [n, d] with labels int64 [n]; n and d at least 1."""
    unit = normalised(features)
    distance, classes = intra_class_distance(unit, labels)
    redundancy, constant = column_redundancy(unit)
    return FeatureNumbers(
        rows=len(features),
        width=features.shape[1],
        sparsity=float(np.mean(list(_shares_below(unit, settings.sparsity_threshold)))),
        nonzero_mean=float(np.count_nonzero(features, axis=1).mean()),
        intra_class_distance=distance,
        classes_with_pairs=classes,
        redundancy=redundancy,
        constant_columns=constant,
        coding_length=coding_length(unit, settings.coding_eps_squared),
    )


def _shares_below(unit: Array, threshold: float) -> Iterator[float]:
    """Share of entries below the threshold in each row."""
    for block in _blocks(unit):
        yield from (block < threshold).mean(axis=1)


def intra_class_distance(unit: Array, labels: Labels) -> tuple[float | None, int]:
    """Mean over classes of the mean distance of two different rows of unit length, and the number of such classes.

    A class with one row has no pair and does not count; None when there is no other.
    """
    means = []
    for label in np.unique(labels):
        rows = unit[labels == label].astype(np.float64)
        count = len(rows)
        if count < 2:
            continue
        total = 0.0
        for start in range(0, count, BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            squared = (block**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2 * (block @ rows.T)
            np.maximum(squared, 0, out=squared)  # rounding may leave -1e-16
            squared[np.arange(len(block)), np.arange(start, start + len(block))] = 0  # a row with itself
            total += float(np.sqrt(squared, out=squared).sum())
        means.append(total / (count * (count - 1)))
    return (float(np.mean(means)), len(means)) if means else (None, 0)


def column_redundancy(unit: Array) -> tuple[float | None, int]:
    """Mean |Pearson's rho| over the columns that change, and how many do not; None when none changes.

    Wang et al., "Revisiting the transferability of supervised pretraining: an MLP perspective", CVPR 2022.
    """
    mean = unit.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((unit.shape[1], unit.shape[1]))
    for block in _blocks(unit):
        centred = block - mean
        covariance += centred.T @ centred
    variance = covariance.diagonal() / len(unit)
    # float32 inputs: what a constant column has left is the rounding of its mean.
    changes = variance > (1e-7 * np.abs(mean)) ** 2
    constant = int((~changes).sum())
    if constant == len(mean):
        return None, constant
    scale = 1 / np.sqrt(covariance.diagonal()[changes])
    rho = np.abs(covariance[np.ix_(changes, changes)] * scale[:, None] * scale[None])
    return float(np.minimum(rho, 1).mean()), constant


def coding_length(unit: Array, eps_squared: float) -> float:
    """1/2 logdet(I + d / (n eps^2) Z^T Z), nats (Ma et al. 2007; Yu et al., "MCR^2", NeurIPS 2020).

    Computed with the smaller of Z^T Z and Z Z^T, whose determinants are equal.
    """
    count, width = unit.shape
    if count < width:
        rows = unit.astype(np.float64)
        gram = rows @ rows.T
    else:
        gram = np.zeros((width, width))
        for block in _blocks(unit):
            gram += block.T @ block
    gram *= width / (count * eps_squared)
    gram[np.diag_indices_from(gram)] += 1
    return float(np.log(np.linalg.cholesky(gram).diagonal()).sum())


def map_of_features(features: Array, perplexity: float, seed: int = 0) -> NDArray[np.float32]:
    """Places float32 [n, 2] of features float32 [n, d] by t-SNE, on L2-normalised rows and at most 50 components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows: NDArray[Any] = normalised(features)
    if min(rows.shape) > MAX_TSNE_COMPONENTS:
        rows = PCA(MAX_TSNE_COMPONENTS, random_state=seed).fit_transform(rows)
    perplexity = min(perplexity, (len(rows) - 1) / 3)  # t-SNE needs three neighbours for each it looks at
    places: NDArray[np.float32] = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(rows)
    return places


def first_of_each_class(labels: Labels, count: int) -> NDArray[np.int64]:
    """Positions of about `count` rows, equally many of each class: its first ones."""
    classes = np.unique(labels)
    each = max(1, count // len(classes))
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:each] for label in classes]))


def _blocks(rows: Array) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS].astype(np.float64)

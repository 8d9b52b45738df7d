"""What CLIP said of each image in an audit, as a small table that a training can filter by."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.audit import ClipRows
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import INDEX_BITS
from pipeline.core.image_set import each_summary, prefix_shards, set_totals
from pipeline.core.recipe import Recipe

FILE = "clip_scores.parquet"
"""In the audit's directory: `image_id` int64, ascending; `clip_score` float32, the cosine to the own class's text."""


def clip_scores_bytes(rows: ClipRows) -> bytes:
    """The table of an audit's images."""
    identifiers = rows.labels.astype(np.int64) << INDEX_BITS | rows.indices.astype(np.int64)
    order = np.argsort(identifiers)
    columns = {"image_id": identifiers[order], "clip_score": rows.own_score[order].astype(np.float32)}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return bytes(sink.getvalue())


def check_audited(store: Store, audit_id: str, recipe: Recipe, images_per_class: int, set_sha256: str) -> None:
    """Hold an audit to the images that a training reads: its scores are by image ids, which all recipes share.

    Args:
        store: the storage root.
        audit_id: name of its directory under `audits/`.
        recipe: of the training's image set.
        images_per_class: of the training; the audit's prefix may be longer.
        set_sha256: of the shards of the training's prefix, so that an audit of as many images reads none again.

    Raises:
        InputError: there is no finished audit, or it is of another set, or of what this one held before it was made
            again.
        WorkError: a shard is damaged.
    """
    path = f"audits/{audit_id}/{MANIFEST}"
    if not store.exists(path):
        raise _no_scores(store, audit_id, path)
    audited = store.read_json(path)["identity"]
    found: str | None = set_sha256
    if audited["images_per_class"] != images_per_class:
        found = _set_sha256(store, recipe, audited["images_per_class"])
    if audited["set_sha256"] != found:
        raise InputError(
            f"train.filters.clip_audit {audit_id!r} is of other images than {store.uri(recipe.images_dir)} has now; "
            f"run `python -m jobs.audit --images-per-class {images_per_class} --set audit.clip_images_per_class="
            f"{images_per_class} --set audit.clip.id=FOLDER` with the same settings and give the id of its folder"
        )


def _set_sha256(store: Store, recipe: Recipe, images_per_class: int) -> str | None:
    """Of a prefix; None where the set has not so many images."""
    try:
        numbers, _ = prefix_shards(store, recipe, images_per_class)
    except InputError:
        return None
    return str(set_totals(each_summary(store, recipe.images_dir, numbers))["set_sha256"])


def _no_scores(store: Store, audit_id: str, path: str) -> InputError:
    return InputError(
        f"train.filters.clip_audit {audit_id!r} has no scores of CLIP ({store.uri(path)}); run `python -m jobs.audit` "
        "with audit.clip.id and give the id of its folder"
    )


class ClipScores:
    """The scores of an audit, 12 bytes an image in memory.

    Args:
        store: the storage root.
        audit_id: name of its directory under `audits/`.

    Raises:
        InputError: there is no such audit, or it was made without CLIP.
        WorkError: its table is damaged.
    """

    def __init__(self, store: Store, audit_id: str) -> None:
        path = f"audits/{audit_id}/{FILE}"
        if not store.exists(path):
            raise _no_scores(store, audit_id, path)
        try:
            table = store.read_table(path)
            self._identifiers: NDArray[np.int64] = table["image_id"].to_numpy()
            self._scores: NDArray[np.float32] = table["clip_score"].to_numpy()
        except (pa.ArrowException, KeyError) as error:
            raise WorkError(f"{store.uri(path)} is damaged ({error}); remove the audit and run it again") from error

    def of(self, identifiers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores of images by id. Raises `InputError` when the audit's CLIP did not look at one of them."""
        places = np.searchsorted(self._identifiers, identifiers).clip(max=max(0, len(self._identifiers) - 1))
        if not len(self._identifiers) or (self._identifiers[places] != identifiers).any():
            raise InputError(
                "train.filters.clip_audit looked at fewer images than are trained on; run jobs.audit on this set with "
                "as many images_per_class, and audit.clip_images_per_class at least images_per_class"
            )
        found: NDArray[np.float32] = self._scores[places]
        return found

"""Features of labelled images from a frozen encoder, kept in the store so that no command computes them twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.encoders import Encoder
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.real_images import LabelledImages
from pipeline.core.scoring import threads

FEATURES_VERSION = 1
"""Part of a cache's name: raise it when the same encoder and images would give other numbers."""
PART_ROWS = 20_000
"""Rows of one file: 164 MB of 2,048 float32, the most that is held twice, and that a killed command does again."""
_DAMAGED = (SafetensorError, FileNotFoundError, KeyError, ValueError)

Features = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Features [n, d] and labels [n]."""


def features_dir(encoder: Encoder, fingerprint: str, resize: int | None = None) -> str:
    """Where the features of an encoder on images with this fingerprint lie under the storage root."""
    seen = [FEATURES_VERSION, encoder.fingerprint, fingerprint]
    name = content_hash(seen if resize is None else [*seen, resize])[:ID_LENGTH]
    return f"features/{name}"


def features_of(
    encoder: Encoder,
    images: LabelledImages,
    store: Store,
    *,
    batch_size: int,
    device: str,
    torch_threads: int,
    resize: int | None = None,
) -> Features:
    """Features float32 [n, d] and labels int64 [n] of all images in order, from the store or computed and kept there.

    What a killed command has left is not computed again, where batches and device are the same.

    Images: shorter side resized (bicubic) to the encoder's input or to `resize`, centre crop, float32.

    Args:
        encoder: frozen.
        images: labelled.
        store: the storage root.
        batch_size: images of one forward.
        device: `cpu` or `cuda`.
        torch_threads: intra-op threads.
        resize: pixels of the shorter side before the crop; None: the encoder's input.

    Raises:
        InputError: an image cannot be read.
        WorkError: a feature is no number, or the store's copy is damaged.
    """
    directory = features_dir(encoder, images.fingerprint, resize)
    if not store.exists(f"{directory}/{MANIFEST}"):
        _compute(encoder, images, store, directory, batch_size, device, torch_threads, resize)
    return _read(store, directory)


def check_device(device: str, key: str) -> None:
    """Raise `InputError` naming the config's key when the device is not there; there is no fallback."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError(f"{key} is cuda but this machine has no usable GPU; set {key}=cpu")


def _compute(
    encoder: Encoder,
    images: LabelledImages,
    store: Store,
    directory: str,
    batch_size: int,
    device: str,
    torch_threads: int,
    resize: int | None,
) -> None:
    parts, rows = _whole_parts(store, directory, batch_size, device)
    for features, labels in _parts(encoder, images, store, batch_size, device, torch_threads, resize, rows):
        if not np.isfinite(features).all():
            raise WorkError(f"encoder {encoder.id} gives features that are no numbers; its training diverged")
        making = np.frombuffer(_making(rows, batch_size, device), np.uint8)
        part: dict[str, NDArray[Any]] = {"features": features, "labels": labels, "making": making}
        store.write_bytes(_part(directory, parts), save(part))
        parts, rows = parts + 1, rows + len(labels)
    about = {
        "encoder": encoder.id,
        "weights": encoder.weights,
        "input_size": encoder.input_size,
        "resize": resize,
        "images": images.name,
        "fingerprint": images.fingerprint,
        "rows": len(images),
        "parts": parts,
        "device": device,
    }
    store.write_json(f"{directory}/{MANIFEST}", about)


def _making(start: int, batch_size: int, device: str) -> bytes:
    """What a part says of itself: with other batches the rows of each part are other ones, and their last bits too."""
    return json.dumps({"start": start, "batch_size": batch_size, "device": device}).encode()


def _whole_parts(store: Store, directory: str, batch_size: int, device: str) -> tuple[int, int]:
    """How many parts, and rows in them, lie there as they would be made now, up to the first that does not.

    Each part is asked: a command with other batches may have been killed after it had replaced the first ones.
    """
    number = rows = 0
    while store.exists(path := _part(directory, number)):
        try:
            part = load(store.read_bytes(path))
            if part["making"].tobytes() != _making(rows, batch_size, device):
                break
            rows += len(part["labels"])
        except _DAMAGED:
            break
        number += 1
    return number, rows


def _parts(
    encoder: Encoder,
    images: LabelledImages,
    store: Store,
    batch_size: int,
    device: str,
    torch_threads: int,
    resize: int | None,
    start: int,
) -> Iterator[Features]:
    """Blocks of at least `PART_ROWS` rows, from row `start` on; the last one may be smaller."""
    if start == len(images):
        return
    network = encoder.load(store).to(device)
    held: list[Features] = []
    with torch.inference_mode(), threads(torch_threads):
        for batch, labels in images.batches(batch_size, encoder.input_size, resize, start):
            held.append((network(batch.to(device)).float().cpu().numpy(), labels.numpy()))
            if sum(len(rows) for _, rows in held) >= PART_ROWS:
                yield _joined(held)
                held = []
        if held:
            yield _joined(held)


def _joined(held: list[Features]) -> Features:
    return np.concatenate([f for f, _ in held]), np.concatenate([labels for _, labels in held])


def _part(directory: str, number: int) -> str:
    return f"{directory}/part-{number:06d}.safetensors"


def _read(store: Store, directory: str) -> Features:
    about = store.read_json(f"{directory}/{MANIFEST}")
    features: NDArray[np.float32] | None = None
    labels = np.empty(about["rows"], np.int64)
    start = 0
    for number in range(about["parts"]):
        path = _part(directory, number)
        try:
            part = load(store.read_bytes(path))
            stop = start + len(part["labels"])
            if features is None:
                features = np.empty((about["rows"], part["features"].shape[1]), np.float32)
            features[start:stop], labels[start:stop] = part["features"], part["labels"]
        except _DAMAGED as error:
            reason = str(error).splitlines()[0]
            raise WorkError(
                f"{store.uri(path)} is damaged ({reason}); remove its folder and run the command again"
            ) from error
        start = stop
    if features is None or start != about["rows"]:
        raise WorkError(f"{store.uri(directory)} holds {start} of {about['rows']} rows; remove it and run again")
    return features, labels

"""Where a text-to-image model's files come from, and what names them in a recipe."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.core.config import ModelConfig
from pipeline.core.errors import InputError
from pipeline.core.hub_snapshot import snapshot_dir

EMBEDDED = Path(__file__).parent.parent / "assets" / "generator"
"""The tiny generator that ships (docs/generator.md)."""


def model_fingerprint(model: ModelConfig) -> dict[str, Any]:
    """What names the model in a recipe: a content hash for a directory, id and commit for a hub id.

    Raises:
        InputError: the directory is not a diffusers model with safetensors, or the hub id has no pinned commit.
    """
    if _is_hub(model):
        return {"id": model.id, "revision": model.revision, "variant": model.variant}
    return {"sha256": _directory_hash(_checked_directory(model)), "variant": model.variant}


def local_model_dir(model: ModelConfig) -> Path:
    """The directory to load from; a hub snapshot is fetched once per machine (`pipeline.core.hub_snapshot`).

    Raises:
        InputError: as `model_fingerprint`, or the hub does not have that snapshot.
        WorkError: the hub cannot be reached.
    """
    if not _is_hub(model):
        return _checked_directory(model)
    return snapshot_dir(model.id, str(model.revision), "recipe.model")


def _is_hub(model: ModelConfig) -> bool:
    if model.id == "embedded" or Path(model.id).exists():
        return False
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model.id) or model.id.startswith("."):
        raise InputError(
            f"recipe.model.id {model.id!r} is no directory here and no hub id; give `embedded`, a path or ORG/NAME"
        )
    if not re.fullmatch(r"[0-9a-f]{40}", model.revision or ""):
        raise InputError(
            f"recipe.model.id {model.id!r} is no directory here, so it is taken as a hub id, which needs "
            f"recipe.model.revision: the commit's 40 hex digits (got {model.revision!r}); branches move"
        )
    return True


def _checked_directory(model: ModelConfig) -> Path:
    directory = EMBEDDED if model.id == "embedded" else Path(model.id).absolute()
    if not (directory / "model_index.json").is_file():
        raise InputError(
            f"recipe.model.id: {str(directory)!r} has no model_index.json, so it is no diffusers model directory"
        )
    if not any(directory.glob("*/*.safetensors")):
        raise InputError(
            f"recipe.model.id: {str(directory)!r} has no *.safetensors; pickled weights are never loaded, "
            "convert them with `pipeline.save_pretrained(path, safe_serialization=True)`"
        )
    return directory


@lru_cache(maxsize=16)
def _directory_hash(directory: Path) -> str:
    """sha256 over names and contents of the files that a pipeline loads: the index and the components' folders."""
    digest = hashlib.sha256()
    loaded = [directory / "model_index.json", *directory.glob("*/*")]
    for path in sorted(p for p in loaded if p.suffix in (".json", ".safetensors", ".txt")):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{_file_hash(path)}\n".encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

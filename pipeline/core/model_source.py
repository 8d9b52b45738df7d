"""Where the files of a model come from, and what names them in a recipe."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.core.config import ModelConfig, RecipeConfig
from pipeline.core.errors import InputError
from pipeline.core.hub_snapshot import snapshot_dir

EMBEDDED = Path(__file__).parent.parent / "assets" / "generator"
"""The tiny generator that ships (docs/generator.md)."""
_LOADED = (".json", ".safetensors", ".txt", ".model")
"""Ends of the files that are loaded; `.model` is a SentencePiece tokenizer."""


@dataclass(frozen=True)
class Layout:
    """Where the files of a kind of model lie in its directory.

    Args:
        key: of the config that names such a model, for messages.
        index: a file that each has.
        folders: glob in front of the names of the other files that are loaded.
        what: it is, for messages.
    """

    key: str
    index: str
    folders: str
    what: str


PIPELINE = Layout("recipe.model", "model_index.json", "*/", "diffusers model")
CHECKER = Layout("recipe.safety_model", "preprocessor_config.json", "", "safety checker")


def model_fingerprint(model: ModelConfig, layout: Layout = PIPELINE) -> dict[str, Any]:
    """What names the model in a recipe: a content hash for a directory, id and commit for a hub id.

    Raises:
        InputError: the directory is not such a model with safetensors, or the hub id has no pinned commit.
    """
    if _is_hub(model, layout):
        return {"id": model.id, "revision": model.revision, "variant": model.variant}
    return {"sha256": _directory_hash(_checked_directory(model, layout), layout), "variant": model.variant}


def check_models(recipe: RecipeConfig, identity: Mapping[str, Any]) -> None:
    """Compare the models that lie on this machine with those that name a set: a path may hold others on each node.

    Content is hashed once per process; a hub's commit says enough.

    Args:
        recipe: its models, as this process would load them.
        identity: of the resolved recipe.

    Raises:
        InputError: a model is another one here, or none.
    """
    for name, layout in (("model", PIPELINE), ("safety_model", CHECKER)):
        model = getattr(recipe, name)
        if model is not None and model_fingerprint(model, layout) != identity[name]:
            raise InputError(
                f"{layout.key}.id: {model.id!r} on node {socket.gethostname()} has other files than where the job was "
                "started; give every node the same ones, or a folder that all nodes share, or a hub id"
            )


def local_model_dir(model: ModelConfig, layout: Layout = PIPELINE) -> Path:
    """The directory to load from; a hub snapshot is fetched once per machine (`pipeline.core.hub_snapshot`).

    Raises:
        InputError: as `model_fingerprint`, or the hub does not have that snapshot.
        WorkError: the hub cannot be reached.
    """
    if not _is_hub(model, layout):
        return _checked_directory(model, layout)
    has_components = layout.folders != ""
    return snapshot_dir(model.id, str(model.revision), layout.key, model.variant, has_components=has_components)


def _is_hub(model: ModelConfig, layout: Layout) -> bool:
    if model.id == "embedded" or Path(model.id).exists():
        return False
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model.id) or model.id.startswith("."):
        embedded = "`embedded`, " if layout is PIPELINE else ""
        raise InputError(
            f"{layout.key}.id {model.id!r} is no directory here and no hub id; give {embedded}a path or ORG/NAME"
        )
    if not re.fullmatch(r"[0-9a-f]{40}", model.revision or ""):
        raise InputError(
            f"{layout.key}.id {model.id!r} is no directory here, so it is taken as a hub id, which needs "
            f"{layout.key}.revision: the commit's 40 hex digits (got {model.revision!r}); branches move"
        )
    return True


def _checked_directory(model: ModelConfig, layout: Layout) -> Path:
    directory = EMBEDDED if model.id == "embedded" else Path(model.id).absolute()
    if not (directory / layout.index).is_file():
        raise InputError(
            f"{layout.key}.id: {str(directory)!r} has no {layout.index}, so it is no {layout.what} directory"
        )
    if not any(directory.glob(f"{layout.folders}*.safetensors")):
        raise InputError(
            f"{layout.key}.id: {str(directory)!r} has no *.safetensors; pickled weights are never loaded, "
            "convert them with `save_pretrained(path, safe_serialization=True)`"
        )
    return directory


@lru_cache(maxsize=16)
def _directory_hash(directory: Path, layout: Layout) -> str:
    """sha256 over names and contents of the files that are loaded: the index and those of the layout's folders."""
    digest = hashlib.sha256()
    loaded = {directory / layout.index, *directory.glob(f"{layout.folders}*")}
    for path in sorted(p for p in loaded if p.suffix in _LOADED):
        digest.update(f"{path.relative_to(directory).as_posix()}\0{_file_hash(path)}\n".encode())
    return digest.hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

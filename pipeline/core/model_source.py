"""Where a text-to-image model's files come from, and what names them in a recipe."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pipeline.core.config import ModelConfig
from pipeline.core.errors import InputError, WorkError

EMBEDDED = Path(__file__).parent.parent / "assets" / "generator"
"""The tiny generator that ships (docs/generator.md)."""

_WEIGHTS_OF_OTHER_FORMATS = ("*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx*", "*.pb", "*.h5")


def model_fingerprint(model: ModelConfig) -> dict[str, Any]:
    """What names the model in a recipe: a content hash for a directory, id and commit for a hub id.

    Raises:
        InputError: the directory is not a diffusers model with safetensors, or the hub id has no pinned commit.
    """
    if _is_hub(model):
        return {"id": model.id, "revision": model.revision, "variant": model.variant}
    return {"sha256": _directory_hash(_checked_directory(model)), "variant": model.variant}


def local_model_dir(model: ModelConfig) -> Path:
    """The directory to load from; a hub snapshot is fetched into the machine's shared cache the first time.

    The hub's cache locks each file, so actors of one node fetch once; later calls read the disk without asking the hub.

    Raises:
        InputError: as `model_fingerprint`, or the hub does not have that snapshot.
        WorkError: the hub cannot be reached.
    """
    if not _is_hub(model):
        return _checked_directory(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    fetch = partial(
        snapshot_download, model.id, revision=model.revision, ignore_patterns=list(_WEIGHTS_OF_OTHER_FORMATS)
    )
    try:
        return Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(fetch())
    except RepositoryNotFoundError as error:
        raise InputError(f"recipe.model.id {model.id!r} is not on the hub (or needs a token in HF_TOKEN)") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WorkError(
            f"the weights of {model.id!r} cannot be fetched ({type(error).__name__}); connect to the hub once, "
            "or give a local directory as recipe.model.id"
        ) from error


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

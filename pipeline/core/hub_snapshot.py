"""One commit of a model hub on this machine: fetched once, whole or not at all, read without the hub afterwards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.core.errors import InputError, WorkError

_WEIGHTS_OF_OTHER_FORMATS = ("*.bin", "*.ckpt", "*.pt", "*.msgpack", "*.onnx*", "*.pb", "*.h5")
_VARIANTS = ("fp16", "bf16", "non_ema")
"""Of weights: `model.fp16.safetensors`, or `model.fp16-00001-of-00002.safetensors` when they are in parts."""
_IN_COMPONENTS = ("*/*", "*.json")
"""All files but the root's, and every JSON. A checkpoint of a whole pipeline in one file lies in the root."""
_CLIENT_TAKEN_AWAY = (AttributeError, RuntimeError)
"""What a thread of huggingface_hub raises when another one, to which the hub did not answer, has closed the HTTP client
that both share: `None` has no request, or the client is closed."""


def snapshot_dir(repository: str, commit: str, key: str, variant: str | None, *, has_components: bool) -> Path:
    """The directory of a hub snapshot in the machine's shared cache; it is fetched when it is not there.

    Actors that start together on a node wait for the first one, which alone talks to the hub. The operating system
    gives its lock back when it is killed; a file appears under its name when all of it is there, and a snapshot counts
    as there when every file of the commit's list that may be loaded is. Weights that no loader opens are not fetched.

    Args:
        repository: ORG/NAME.
        commit: 40 hex digits.
        key: of the config that names it, for messages, e.g. `recipe.model`.
        variant: of the weight files, or None. Weights without one are fetched too, since diffusers takes them for each
            component that lacks the variant.
        has_components: each part has its folder, as in a diffusers pipeline; the root's weights are then not fetched.

    Raises:
        InputError: the hub has no such repository or commit.
        WorkError: the hub cannot be reached, or the cache cannot be written.
    """
    from filelock import FileLock
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    others = [f"*.{name}{end}*" for name in _VARIANTS if name != variant for end in ".-"]
    fetch = partial(
        snapshot_download,
        repository,
        revision=commit,
        allow_patterns=list(_IN_COMPONENTS) if has_components else None,
        ignore_patterns=[*_WEIGHTS_OF_OTHER_FORMATS, *others],
    )
    try:
        return Path(fetch(local_files_only=True))
    except LocalEntryNotFoundError:
        pass  # nothing is there, or not all of it
    locks = Path(constants.HF_HUB_CACHE) / ".locks" / f"models--{repository.replace('/', '--')}"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{commit}.lock"):
            try:
                return Path(fetch(local_files_only=True))  # another actor fetched it while this one waited
            except LocalEntryNotFoundError:
                try:
                    return Path(fetch())
                except _CLIENT_TAKEN_AWAY as error:
                    raise ConnectionError("another thread closed the client of a hub that does not answer") from error
    except RepositoryNotFoundError as error:
        raise InputError(f"{key}.id {repository!r} is not on the hub (or needs a token in HF_TOKEN)") from error
    except RevisionNotFoundError as error:
        raise InputError(f"{key}.revision: {repository!r} has no commit {commit} on the hub") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, NotImplementedError) as error:
        raise WorkError(
            f"the weights of {repository!r} cannot be fetched ({type(error).__name__}); connect to the hub once, "
            f"or give a local directory as {key}.id"
        ) from error

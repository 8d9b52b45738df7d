"""Training states on disk: what a killed training of the embedded generator goes on from."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.core.errors import InputError
from pipeline.core.generator_config import GeneratorConfig

FREE_TO_CHANGE: dict[str, Any] = {"checkpoint_every_s": True, "num_threads": True, "unet": {"num_steps"}}
"""What may differ when a training goes on: it moves the end, not the steps already made (see `UnetTrainer.load`)."""
UNREADABLE = (RuntimeError, ValueError, TypeError, LookupError, EOFError, pickle.UnpicklingError)
"""What `torch.load` and `load_state_dict` raise for a cut file, another file, and the states of other parts."""


def claim_work_dir(work_dir: Path, config: GeneratorConfig) -> None:
    """Tie a folder of training states to a config.

    Raises:
        InputError: it holds the states of another one, or its config.json is damaged.
    """
    wanted = config.model_dump(mode="json", exclude=FREE_TO_CHANGE)
    path = work_dir / "config.json"
    if not path.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{str(path)!r} is damaged ({error}); remove it, if the states beside it are of this very config, or give "
            "another --work"
        ) from error
    if held != wanted:
        raise InputError(f"{str(work_dir)!r} holds the states of another training (config.json); give another --work")


def save_state(path: Path, parts: Mapping[str, Any], progress: Mapping[str, float]) -> None:
    """Write the `state_dict` of every part and the progress; a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save({"progress": dict(progress), **{name: part.state_dict() for name, part in parts.items()}}, unfinished)
    os.replace(unfinished, path)


def load_state(path: Path, parts: Mapping[str, Any]) -> dict[str, float]:
    """Load every part from a file of `save_state` and return the progress; {} and nothing loaded without a file.

    Raises:
        InputError: the file is damaged, or holds other parts.
    """
    if not path.exists():
        return {}
    content = io.BytesIO(path.read_bytes())  # given the path, torch raises an OSError for a cut file as for a bad disk
    try:
        state = torch.load(content, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        progress: dict[str, float] = state["progress"]
    except UNREADABLE as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(
            f"{str(path)!r} cannot be gone on from ({type(error).__name__}: {why}); put a whole copy in its place, or "
            "remove it and what was trained after it (unet.pt after vae.pt) to train that again"
        ) from error
    return progress

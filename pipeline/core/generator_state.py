"""Training states on disk: what a killed training of the embedded generator goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def save_state(path: Path, parts: Mapping[str, Any], progress: Mapping[str, float]) -> None:
    """Write the `state_dict` of every part and the progress; a reader sees the old file or the new one, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    torch.save({"progress": dict(progress), **{name: part.state_dict() for name, part in parts.items()}}, unfinished)
    os.replace(unfinished, path)


def load_state(path: Path, parts: Mapping[str, Any]) -> dict[str, float]:
    """Load every part from a file of `save_state` and return the progress; {} and nothing loaded without a file."""
    if not path.exists():
        return {}
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    progress: dict[str, float] = state["progress"]
    return progress

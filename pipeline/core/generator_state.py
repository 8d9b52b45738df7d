"""Training states on disk: what a killed training of the embedded generator goes on from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pipeline.core.errors import InputError
from pipeline.core.generator_config import GeneratorConfig

FREE_TO_CHANGE: dict[str, Any] = {"checkpoint_every_s": True, "num_threads": True, "unet": {"num_steps"}}
"""What may differ when a training goes on: it moves the end, not the steps already made (see `UnetTrainer.load`)."""


def claim_work_dir(work_dir: Path, config: GeneratorConfig) -> None:
    """Tie a folder of training states to a config. Raises `InputError` when it holds those of another one."""
    wanted = config.model_dump(mode="json", exclude=FREE_TO_CHANGE)
    path = work_dir / "config.json"
    if not path.exists():
        work_dir.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(wanted, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise InputError(f"{str(work_dir)!r} holds the states of another training (config.json); give another --work")


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

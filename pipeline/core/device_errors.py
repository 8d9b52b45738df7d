"""Errors that say nothing of an image and everything of the device: the next image would meet them too."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from pipeline.core.errors import WorkerBrokenError, named_line

_NAMES = re.compile(r"CUDA|CUDNN|CUBLAS|HIP error|MIOPEN", re.IGNORECASE)


def check_device(errors: Sequence[Exception], rows: int) -> None:
    """Judge the errors that were left of a batch of so many rows, after each row was tried alone.

    Raises `WorkerBrokenError` when one of them ends the use of a device (CUDA's are sticky, and batches of one shape
    need one memory), or when every row has one that names a device's library, as many of torch's plain errors do.
    """
    ends = [error for error in errors if isinstance(error, torch.AcceleratorError | torch.OutOfMemoryError)]
    named = [error for error in errors if isinstance(error, RuntimeError) and _NAMES.search(str(error))]
    if ends or len(named) == rows:
        raise WorkerBrokenError(
            f"the device of this worker failed ({named_line((ends or named)[0])[:300]}); look at that GPU, or begin a "
            "set with a smaller generate.batch_size, then run the same command again"
        )

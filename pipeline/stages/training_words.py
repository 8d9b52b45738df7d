"""What a training tells people: what is unwise about it, and why it failed."""

from __future__ import annotations

import logging
import re

from pipeline.core.errors import InputError, WorkError
from pipeline.core.train_config import TrainConfig

logger = logging.getLogger(__name__)
_CLASS = re.compile(rf"^{re.escape(WorkError.__module__)}\.\w+: ")


def tell_warm_up(settings: TrainConfig) -> None:
    """Say that a training ends before its learning rate is where it should be."""
    if settings.warmup_epochs >= settings.epochs:
        logger.warning(
            "train: the warm-up takes %g epochs and the training %d, so the learning rate never reaches its peak; "
            "lower train.warmup_epochs",
            settings.warmup_epochs,
            settings.epochs,
        )


def root_cause(error: BaseException) -> str:
    """The last line of a worker's error, for people; Ray wraps it in several layers.

    Of several it is one that tells its mend: a lone worker's `WorkError` breaks the connections of the others.
    """
    failures = list((getattr(error, "worker_failures", None) or {}).values())
    told = [failure for failure in failures if isinstance(failure, (InputError, WorkError))]
    error = next(iter([*told, *failures]), error)
    lines = [line for line in str(error).splitlines() if line.strip()]
    cause = lines[-1].strip() if lines else type(error).__name__
    if told:  # in a task of Ray Data's it has a traceback, too, and its class before it
        return _CLASS.sub("", cause)
    return f"{cause}; run the same command again to go on from its last checkpoint"

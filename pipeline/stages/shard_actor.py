"""The worker of a generation: an actor that holds one model and makes one shard per call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.image_set import read_summary, shard_path

Batch = dict[str, Any]


class ShardActor:
    """Called by Ray Data with one shard number at a time; answers with one small row.

    An error of the start or of publishing is a row too: Ray would restart the actor again and again, and wrap the
    reason in several layers. torch and diffusers are imported here, on the worker, and not on the driver.

    Args:
        pulse: handle of the `pipeline.stages.pulse.Pulse` actor that hears of every step.
        replace: make a shard again that is published already. Otherwise it is left alone: a lost actor or another
            driver on the same set may have published it since this driver looked.
        others: see `pipeline.core.shard_maker.ShardMaker`.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        prompts_dir: str,
        parts: Sequence[Mapping[str, Any]],
        images_dir: str,
        pulse: Any,
        replace: bool,
    ) -> None:
        pulse.beat.remote("starting")
        from pipeline.core.shard_maker import ShardMaker

        self._torch_threads = config.generate.torch_threads
        self._store, self._images_dir, self._replace = store, images_dir, replace
        self._error: Exception | None = None
        try:
            self._maker = ShardMaker(config, store, prompts_dir, parts, images_dir, pulse.beat.remote)
            pulse.beat.remote("ready")
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver must hear it as it is
            self._error = error

    def __call__(self, batch: Batch) -> Batch:
        """Make the shard of a batch of one row `shard`; a row of `shard`, `made`, `summary`, `error`, `is_input`."""
        import torch

        torch.set_num_threads(self._torch_threads)  # a setting of each thread, and calls may come on several
        shard = int(batch["shard"][0])
        summary, made, error = "", False, self._error
        if error is None:
            try:
                made = self._replace or not self._store.exists(shard_path(self._images_dir, shard))
                done = self._maker.make(shard) if made else read_summary(self._store, self._images_dir, shard)
                summary = json.dumps(done.__dict__)
            except Exception as caught:  # noqa: BLE001
                error = caught
        message = "" if error is None else describe(error)
        return {
            "shard": [shard],
            "made": [made],
            "summary": [summary],
            "error": [message],
            "is_input": [isinstance(error, InputError)],
        }


def describe(error: Exception) -> str:
    """An error as one line; the kind is named unless it is one of ours, whose messages stand alone."""
    text = " ".join(str(error).split())
    return text if type(error).__module__ == InputError.__module__ else f"{type(error).__name__}: {text}"

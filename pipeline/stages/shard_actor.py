"""The worker of a generation: an actor that holds one model and makes one shard per call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.image_set import read_summary, shard_path
from pipeline.core.storage_probe import check_storage
from pipeline.stages.pulse import voice

if TYPE_CHECKING:
    from pipeline.core.shard_maker import ShardMaker

Batch = dict[str, Any]


class ShardActor:
    """Called by Ray Data with one shard number at a time; answers with one small row.

    An error of the start or of publishing is a row too: Ray would restart the actor again and again, and wrap the
    reason in several layers. torch and diffusers are imported here, on the worker, and not on the driver.

    Args:
        make_maker: another maker than `pipeline.core.shard_maker.ShardMaker`, called with the same arguments.
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
        make_maker: Callable[..., ShardMaker] | None = None,
    ) -> None:
        self._tell = voice(pulse)
        self._tell("starting")
        from pipeline.core.shard_maker import ShardMaker

        self._store, self._images_dir, self._replace = store, images_dir, replace
        self._error: Exception | None = None
        try:
            if config.generate.preflight == "auto":  # before the model is loaded, which takes minutes
                check_storage(store, images_dir)
            self._maker = (make_maker or ShardMaker)(config, store, prompts_dir, parts, images_dir, self._tell)
            self._tell("ready")
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver must hear it as it is
            self._error = error

    def __del__(self) -> None:
        """Ray Data drops the object before it gives the actor back. A killed actor says nothing, and starts again."""
        self._tell("gone")

    def __call__(self, batch: Batch) -> Batch:
        """Make the shard of a batch of one row `shard`; a row of `shard`, `made`, `summary`, `error`, `is_input`."""
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

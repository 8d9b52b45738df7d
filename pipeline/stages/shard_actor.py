"""The worker of a generation: an actor that holds one model and makes one shard per call."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkerBrokenError, named_line
from pipeline.core.image_set import read_summary, shard_path
from pipeline.core.model_source import check_models
from pipeline.core.recipe import Recipe
from pipeline.core.storage_probe import check_storage
from pipeline.stages.pool_metrics import BROKEN
from pipeline.stages.pulse import FOUND, MAKING, ask, heard, here, voice

if TYPE_CHECKING:
    from pipeline.core.shard_maker import ShardMaker

Batch = dict[str, Any]


class ShardActor:
    """Called by Ray Data with one shard number at a time; answers with one small row.

    An error of the start or of publishing is a row too: Ray would restart the actor again and again, and wrap the
    reason in several layers. torch and diffusers are imported here, on the worker, and not on the driver.

    Where others have shown that the job as such is sound, a failing device or start is this process's own trouble: it
    ends, nothing of its shard is published, and Ray starts it again, maybe elsewhere. `watched` counts how often.

    Args:
        make_maker: another maker than `pipeline.core.shard_maker.ShardMaker`, called with the same arguments.
        pulse: handle of the `pipeline.stages.pulse.Pulse` actor that hears of every step.
        replace: make a shard again that is published already. Otherwise it is left alone: a lost actor or another
            driver on the same set may have published it since this driver looked.
        recipe: of the set; its models must be the ones that lie here.
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
        recipe: Recipe,
        make_maker: Callable[..., ShardMaker] | None = None,
    ) -> None:
        self._pulse, self._tell = pulse, voice(pulse)
        heard(self._tell("starting", says=f"starting {here()}"))
        from pipeline.core.shard_maker import ShardMaker

        self._store, self._images_dir, self._replace = store, images_dir, replace
        self._error: Exception | None = None
        try:
            if config.generate.preflight == "auto":  # before the model is loaded, which takes minutes
                check_storage(store, images_dir)
            check_models(config.recipe, recipe.identity)
            about = (config, store, prompts_dir, parts, images_dir, self._tell, recipe)
            self._maker = (make_maker or ShardMaker)(*about)
            self._tell("ready")
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver must hear it as it is
            vitals = ask(pulse)
            if vitals.ready or vitals.images:
                self._end_process(error)
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
                if made:
                    heard(self._tell(MAKING, says=f"making shard {shard} {here()}"))
                    done = self._maker.make(shard)
                else:
                    done = read_summary(self._store, self._images_dir, shard)
                    self._tell(FOUND)
                summary = json.dumps(done.__dict__)
            except Exception as caught:  # noqa: BLE001
                if isinstance(caught, WorkerBrokenError) and ask(self._pulse).images:
                    self._end_process(caught)
                error = caught
        message = "" if error is None else describe(error)
        return {
            "shard": [shard],
            "made": [made],
            "summary": [summary],
            "error": [message],
            "is_input": [isinstance(error, InputError)],
        }

    def _end_process(self, error: Exception) -> NoReturn:
        """End without a goodbye, for Ray to start the actor again; an actor that exits in order stays away."""
        reason = describe(error)
        print(f"this worker ends and is started again: {reason}", file=sys.stderr, flush=True)
        heard(self._tell(BROKEN, says=reason))
        os._exit(1)


def describe(error: Exception) -> str:
    """An error as one line; the kind is named unless it is one of ours, whose messages stand alone."""
    return " ".join(str(error).split()) if type(error).__module__ == InputError.__module__ else named_line(error)

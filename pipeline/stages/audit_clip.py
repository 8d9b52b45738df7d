"""CLIP's part of an audit: one model per actor, shard by shard."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import ray.data
from numpy.typing import NDArray

from pipeline.core.artifact import Store
from pipeline.core.audit import ClipRows
from pipeline.core.audit_reading import first_pictures
from pipeline.core.clip_layout import CLIP
from pipeline.core.config import ModelConfig, RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import num_shards
from pipeline.core.image_set import shard_path
from pipeline.core.model_source import local_model_dir
from pipeline.core.recipe import Recipe
from pipeline.core.transfer_config import AuditConfig
from pipeline.stages.data_context import leave_words_to_us
from pipeline.stages.pool_watch import watched_rows
from pipeline.stages.pulse import MAKING, SHARD, here, start_pulse, voice
from pipeline.stages.runtime import ray_session

if TYPE_CHECKING:  # torch and transformers, which only the workers need
    from pipeline.core.clip_judge import ClipJudge


def clip_model(settings: AuditConfig) -> ModelConfig:
    """The CLIP model of an audit, to be opened or fetched."""
    return ModelConfig(id=settings.clip.id, revision=settings.clip.revision)


def clip_rows(config: RunConfig, store: Store, recipe: Recipe, shard_size: int) -> ClipRows:
    """CLIP's word on the good ones of each class's first images, shard by shard, as actors of Ray Data finish.

    Raises `InputError` when the model cannot be loaded or the device is not there, `WorkError` when a shard is damaged
    or the hub cannot be reached.
    """
    settings = config.audit
    each = min(settings.clip_images_per_class, config.images_per_class)
    count = num_shards(len(recipe.classes), each, shard_size)
    paths = [shard_path(recipe.images_dir, number) for number in range(count)]
    with ray_session():
        leave_words_to_us()
        pulse = start_pulse()
        rows = ray.data.from_items([{"shard": path} for path in paths], override_num_blocks=count).flat_map(
            ClipActor,
            fn_constructor_args=(settings, store, recipe.classes.spoken_names, each, pulse),
            concurrency=settings.num_actors,
            num_cpus=settings.num_cpus_per_actor,
            num_gpus=settings.num_gpus_per_actor,
        )
        needs = {"CPU": settings.num_cpus_per_actor, "GPU": settings.num_gpus_per_actor}
        with watched_rows(rows, pulse, needs, config.generate.stall_timeout_s, "audit") as judged:
            return gather(judged, len(recipe.classes))


def gather(rows: Iterable[Mapping[str, Any]], num_classes: int) -> ClipRows:
    """Put the rows of `ClipActor` together as they come, and let the embeddings go: all would not fit into a driver.

    Raises `InputError` or `WorkError` when a row is an error.
    """
    columns: dict[str, Any] = {name: array("q") for name in ("labels", "indices", "best", "domain")}
    columns |= {name: array("f") for name in ("own_score", "best_score")}
    sums: NDArray[np.float64] = np.zeros((num_classes, 0))
    for row in rows:
        if row.get("error"):
            raise (InputError if row["is_input"] else WorkError)(row["error"])
        for name, values in columns.items():
            values.append(row[name])
        if not sums.size:
            sums = np.zeros((num_classes, len(row["vector"])))
        sums[row["labels"]] += row["vector"]
    return ClipRows(**{name: np.asarray(values) for name, values in columns.items()}, vector_sums=sums)


class ClipActor:
    """Called by Ray Data with one shard at a time; answers with a row for each good one of a class's first images.

    An error of the start is a row too: Ray would restart the actor again and again.

    Args:
        settings: model, prompt, batch size and device.
        store: the storage root.
        names: of the classes, in label order.
        images_per_class: how many of each class are looked at.
        pulse: handle of the `pipeline.stages.pulse.Pulse` actor that hears of every step.
    """

    def __init__(
        self, settings: AuditConfig, store: Store, names: Sequence[str], images_per_class: int, pulse: Any
    ) -> None:
        self._tell = voice(pulse)
        self._tell("starting")
        from pipeline.core.clip_judge import ClipJudge
        from pipeline.core.features import check_device

        self._settings, self._store, self._images_per_class = settings, store, images_per_class
        self._judge: ClipJudge | None = None
        try:
            check_device(settings.device, "audit.device")
            directory = local_model_dir(clip_model(settings), CLIP)
            self._judge = ClipJudge(directory, names, settings.clip_prompt, settings.device)
            self._tell("ready")
        except (InputError, WorkError) as error:  # a hub that cannot be reached, too: another start would not mend it
            self._error, self._is_input = str(error), isinstance(error, InputError)

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """The shard's rows: fields of `ClipRows`, and the embedding as `vector`."""
        if self._judge is None:
            return [{"error": self._error, "is_input": self._is_input}]
        self._tell(MAKING, says=f"judging {row['shard']} {here()}")
        found = list(self._judged(self._judge, row["shard"]))
        self._tell(SHARD)
        return found

    def _judged(self, judge: ClipJudge, shard: str) -> Iterator[dict[str, Any]]:
        pictures = list(first_pictures(self._store, shard, self._images_per_class))
        size = self._settings.batch_size
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            said = judge.judge([image for _, _, image in part], [label for label, _, _ in part])
            self._tell("batch")
            for number, (label, index, _) in enumerate(part):
                yield {
                    "labels": label,
                    "indices": index,
                    "best": int(said.best[number]),
                    "own_score": float(said.own_score[number]),
                    "best_score": float(said.best_score[number]),
                    "domain": int(said.domain[number]),
                    "vector": said.vectors[number],
                }

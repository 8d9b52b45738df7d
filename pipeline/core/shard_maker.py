"""One shard: its rows of the prompt table, through the engine, into the bytes of a Parquet file. No Ray in here.

`ShardMaker.make` may be called on several threads: the engine works for one shard at a time, while the last images of
another are encoded and its file is written.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.errors import named_line
from pipeline.core.extra_shards import first_row
from pipeline.core.image_set import ShardSummary, shard_path
from pipeline.core.images import BLANK_PIXEL_STD, encode_image, perceptual_hash, pixel_std
from pipeline.core.model_source import CHECKER, local_model_dir
from pipeline.core.schema import BLANK, FAILED, IMAGE_SCHEMA, NSFW, OK
from pipeline.core.shard_prompts import ShardPrompts

if TYPE_CHECKING:
    from pipeline.core.diffusion import DiffusionEngine, GeneratedImage
    from pipeline.core.recipe import Recipe

PARQUET_OPTIONS = {
    "row_group_size": 128,  # about 10 MB of 512x512 JPEGs: one read of a loader
    "compression": "none",  # image bytes do not shrink
    "use_dictionary": ["class_name", "wnid", "template", "background", "style", "status"],
}
"""Of `pyarrow.parquet.write_table` for a shard."""

MAX_REASON_LENGTH = 200
_MENDS = {
    "float16": "its numbers overflow there, so give recipe.dtype=bfloat16 or float32",
    "bfloat16": "give recipe.dtype=float32, or check the weights of recipe.model",
    "float32": "check the weights of recipe.model",
}
"""Of NaN, by `recipe.dtype`: float16 ends at 65,504, the others at 3e38."""
MAX_OVERHEAD_BYTES = 4 << 20
"""Of a shard's file over its columns: 0.1 MB in practice; the schema and each row group's 30 columns take some KB."""

Row = dict[str, Any]


class OnBatch(Protocol):
    """What a maker tells of its work, on any of its threads; it must not wait."""

    def __call__(
        self,
        event: str,
        images: int = 0,
        seconds: Mapping[str, float] | None = None,
        outcomes: Mapping[str, int] | None = None,
    ) -> object:
        """As `pipeline.stages.pulse.Pulse.beat`."""


def _tell_nobody(*_: object, **__: object) -> None:
    """The maker works alone."""


class ShardMaker:
    """Makes and publishes shards of one image set; the model is loaded once.

    Args:
        config: of the run.
        store: the storage root.
        prompts_dir: of the prompt table.
        parts: of the prompt table's manifest.
        images_dir: of the image set.
        on_batch: told of every `batch`, its encoding (`encoded`) and every `shard`.
        recipe: of the set, for its extra shards, whose rows stand in no prompt table.

    Raises:
        InputError: the model or the device is wrong.
        WorkError: the weights cannot be fetched.
    """

    def __init__(
        self,
        config: RunConfig,
        store: Store,
        prompts_dir: str,
        parts: Sequence[Mapping[str, Any]],
        images_dir: str,
        on_batch: OnBatch = _tell_nobody,
        recipe: Recipe | None = None,
    ) -> None:
        self._on_batch = on_batch
        self._config = config
        self._store = store
        self._prompts = ShardPrompts(config.generate, store, prompts_dir, parts, recipe)
        self._images_dir = images_dir
        self.engine = self._open_engine()
        self.environment = self.engine.environment
        self._encoder = ThreadPoolExecutor(1)
        self._engine_lock = threading.Lock()

    def _open_engine(self) -> DiffusionEngine:
        from pipeline.core.diffusion import DiffusionEngine  # torch and diffusers: a null generator does without

        self._use_threads()  # the engine's environment tells of them
        config, settings = self._config, self._config.generate
        directory = local_model_dir(config.recipe.model)
        safety = None
        if config.recipe.safety_model is not None:
            from pipeline.core.safety import SafetyScorer

            checker = local_model_dir(config.recipe.safety_model, CHECKER)
            safety = SafetyScorer(checker, config.recipe.safety_model.variant, settings.device)
        return DiffusionEngine(directory, config.recipe, settings.batch_size, settings.device, settings.engine, safety)

    def _use_threads(self) -> None:
        import torch

        torch.set_num_threads(
            self._config.generate.torch_threads
        )  # a setting of each thread, and calls may use several

    def make(self, shard: int) -> ShardSummary:
        """Make a shard and publish it under its fixed name.

        Raises:
            WorkerBrokenError: the device failed; nothing is published.
            WorkError: the shard cannot be written.
        """
        started = time.time()
        rows = list(self.rows(shard).values())
        summary = summarize(shard, first_row(shard, len(rows)), rows, started, self.environment)
        began = time.perf_counter()
        data = shard_bytes(rows, summary)
        self._store.write_bytes(shard_path(self._images_dir, shard), data)
        self._on_batch("shard", 0, {"write": time.perf_counter() - began})
        return summary

    def rows(self, shard: int, wanted: Sequence[int] | None = None) -> dict[int, Row]:
        """Rows of a shard by their number in it: all, or those of the batches that hold the `wanted` numbers."""
        prompts = self.prompt_rows(shard)
        batch_size = self._config.generate.batch_size
        starts: Sequence[int] = range(0, len(prompts), batch_size)
        if wanted is not None:
            starts = sorted({number - number % batch_size for number in wanted})
        made = self.draw([prompts[start : start + batch_size] for start in starts])
        return {start + i: row for start, rows in zip(starts, made, strict=True) for i, row in enumerate(rows)}

    def draw(self, batches: Sequence[Sequence[Row]]) -> list[list[Row]]:
        """Finished rows for batches of rows of the prompt table, each of at most `batch_size`; nothing is published.

        Raises `WorkerBrokenError` when the device failed: these rows are not to be blamed.
        """
        encoded: list[Future[list[Row]]] = []
        self._use_threads()
        with self._engine_lock:
            for batch in batches:  # a batch is encoded on a thread while the next one is made
                began = time.perf_counter()
                results, parts = self._images(batch)
                if errors := [result for result in results if isinstance(result, Exception)]:
                    from pipeline.core.device_errors import check_device  # torch, which a null generator does without

                    check_device(errors, len(batch))
                seconds = (time.perf_counter() - began) / len(batch)
                encoded.append(self._encoder.submit(self._rows, batch, results, seconds))
                self._on_batch("batch", len(batch), parts)
        return [future.result() for future in encoded]

    def rows_in(self, shard: int) -> int:
        """How many rows a shard has."""
        return self._prompts.rows_in(shard)

    def prompt_rows(self, shard: int) -> list[Row]:
        """The rows of a shard before it is made: those of the prompt table, or those of extra images."""
        return self._prompts.rows(shard)

    def _images(self, batch: Sequence[Row]) -> tuple[list[GeneratedImage | Exception], Mapping[str, float]]:
        """An image or the error of each row, and the engine's seconds by part.

        A failed batch is tried again row by row: one bad row spoils no other.
        """
        try:
            columns = [[row[name] for row in batch] for name in ("prompt", "seed", "guidance_scale")]
            return list(self.engine.generate(*columns)), self.engine.seconds
        except Exception as error:  # noqa: BLE001 - whatever torch and diffusers raise on one input stays a row
            if len(batch) == 1:
                # Its frames, and those of the errors behind it, hold the tensors of the failed call.
                error.__traceback__ = error.__cause__ = error.__context__ = None
                return [error], {}
        results: list[GeneratedImage | Exception] = []
        parts: dict[str, float] = {}
        for row in batch:
            one, seconds = self._images([row])
            results += one
            parts = {part: parts.get(part, 0.0) + value for part, value in seconds.items()} or parts
        return results, parts

    def _rows(self, batch: Sequence[Row], results: Sequence[GeneratedImage | Exception], seconds: float) -> list[Row]:
        began = time.perf_counter()
        rows = [
            {**row, **self._outcome(result), "seconds": seconds} for row, result in zip(batch, results, strict=True)
        ]
        outcomes = Counter(_outcome_label(row) for row in rows)
        self._on_batch("encoded", 0, {"encode": time.perf_counter() - began}, outcomes)
        return rows

    def _outcome(self, result: GeneratedImage | Exception) -> Row:
        """The columns that making an image adds to its row."""
        if isinstance(result, Exception):
            return _failure(result)
        try:
            return self._encoded(result)
        except Exception as error:  # noqa: BLE001 - one picture that cannot be encoded spoils no other
            return _failure(error)

    def _encoded(self, result: GeneratedImage) -> Row:
        if not result.is_finite:
            dtype = self._config.recipe.dtype
            raise FloatingPointError(f"the model gave NaN for pixels in recipe.dtype={dtype}; {_MENDS[dtype]}")
        data = encode_image(result.pixels, self._config.recipe)
        spread = pixel_std(result.pixels)
        status: str = OK
        reason: str | None = None
        if result.is_nsfw:
            whose = "recipe.safety_model" if self._config.recipe.safety_model else "the model's safety checker"
            status, reason = NSFW, f"flagged by {whose}"
        elif spread < BLANK_PIXEL_STD:
            status, reason = BLANK, f"pixel_std {spread:.2f} is below {BLANK_PIXEL_STD}"
        height, width = result.pixels.shape[:2]
        return {
            "image": {"bytes": data, "path": None},
            "status": status,
            "reason": reason,
            "width": width,
            "height": height,
            "sha256": hashlib.sha256(data).hexdigest(),
            "phash": perceptual_hash(result.pixels),
            "pixel_std": spread,
            "nsfw_score": result.nsfw_score,
        }


def _failure(error: Exception) -> Row:
    """The columns of a row that has no image."""
    return {"status": FAILED, "reason": named_line(error)[:MAX_REASON_LENGTH]}


def _outcome_label(row: Row) -> str:
    """The status of a row; a failed one's with the kind of error, of which there are few."""
    return f"{FAILED}: {row['reason'].partition(':')[0]}" if row["status"] == FAILED else str(row["status"])


def summarize(
    shard: int, row_start: int, rows: Sequence[Row], started: float, environment: dict[str, str] | None = None
) -> ShardSummary:
    """What goes into a shard's footer."""
    return ShardSummary(
        shard=shard,
        row_start=row_start,
        rows=len(rows),
        counts=dict(Counter(row["status"] for row in rows)),
        reasons=dict(Counter(row["reason"] for row in rows if row["status"] == FAILED)),
        rows_sha256=rows_digest(rows),
        started=started,
        finished=time.time(),
        environment=environment or {},
        engine_s=sum(row["seconds"] for row in rows),
        stored_bytes=sum(len((row.get("image") or {}).get("bytes") or b"") for row in rows),
        truncated=sum(row["truncated"] for row in rows),
    )


def rows_digest(rows: Sequence[Row]) -> str:
    """sha256 over image id, status and sha256 of every row, in order."""
    lines = "".join(f"{row['image_id']} {row['status']} {row.get('sha256')}\n" for row in rows)
    return hashlib.sha256(lines.encode()).hexdigest()


def shard_bytes(rows: Sequence[Row], summary: ShardSummary) -> pa.Buffer:
    """A shard's Parquet file, not copied out of Arrow's memory: that would take as long as making it."""
    schema = IMAGE_SCHEMA.with_metadata({**IMAGE_SCHEMA.metadata, **summary.footer()})
    table = pa.Table.from_pylist(list(rows), schema=schema)
    # One that grows is copied several times on its way. Plain encoding adds headers, statistics and the footer only.
    buffer = pa.allocate_buffer(table.nbytes + table.nbytes // 8 + MAX_OVERHEAD_BYTES, resizable=True)
    with pa.FixedSizeBufferWriter(buffer) as sink:
        pq.write_table(table, sink, **PARQUET_OPTIONS)
        buffer.resize(sink.tell())
    return buffer

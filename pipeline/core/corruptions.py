"""Corrupted copies of images by the library `imagecorruptions`, the same in every run and on any number of processes.

The corruptions and their strengths are ImageNet-C's (Hendrycks and Dietterich 2019, arXiv:1903.12261), made for
pictures of 224 pixels. Smaller pictures get the same strengths in pixels: blurs, motion and warps are then harsher.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from pipeline.core.corruption_names import MIN_SIDE
from pipeline.core.errors import WorkError
from pipeline.core.identity import content_hash

WITH_SEED = ("impulse_noise", "glass_blur")
"""Corruptions whose draws come from a generator of their own, not from numpy's global one."""

Images = NDArray[np.uint8]


def corrupt(images: Images, positions: Sequence[int], name: str, severity: int, seed: int) -> Images:
    """Corrupted copies; numpy's global generator is left as it was.

    Args:
        images: uint8 [N, H, W, 3], no side below `MIN_SIDE`.
        positions: of the images in their test set. They decide the draws, so a part of a set is corrupted as the whole.
        name: one of `corruption_names.ALL`.
        severity: 1 (weak) to 5.
        seed: another one gives other draws.

    Returns:
        uint8, shape of `images`.
    """
    import imagecorruptions  # compiles and loads for a second

    assert images.dtype == np.uint8 and min(images.shape[1:3]) >= MIN_SIDE, (images.dtype, images.shape)
    out = np.empty_like(images)
    state = np.random.get_state()  # noqa: NPY002 - the library draws from the global generator
    try:
        for row, (image, position) in enumerate(zip(images, positions, strict=True)):
            draw = int(content_hash([seed, name, severity, int(position)])[:8], 16)
            np.random.seed(draw)  # noqa: NPY002
            own = {"seed": draw} if name in WITH_SEED else {}
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")  # of the library, for every image
                out[row] = imagecorruptions.corrupt(image, severity, name, **own)
            if name == "spatter" and not out[row].any():
                out[row] = image  # no drop fell on this small picture: the library divides by the largest, 0
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return out


class CorruptionPool:
    """Processes that corrupt images; a context manager.

    Args:
        num_processes: how many.
        seed: of all draws.
    """

    def __init__(self, num_processes: int, seed: int) -> None:
        self._num_processes = num_processes
        self._seed = seed
        # Forked, they would inherit the locks of the parent's threads; so each starts anew, which takes seconds.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(num_processes, mp_context=context, initializer=_one_thread)

    def __enter__(self) -> CorruptionPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def each(
        self, images: Images, positions: Sequence[int], kinds: Iterable[tuple[str, int]]
    ) -> Iterator[tuple[tuple[str, int], Images]]:
        """((name, severity), corrupted copies) for each of `kinds`, in order; the next is made while one is used.

        Raises:
            WorkError: a process was killed.
        """
        try:
            yield from self._each(images, positions, kinds)
        except BrokenProcessPool as error:
            raise WorkError(
                "a process that makes corrupted images was killed (out of memory?); run again, with a lower "
                "evaluate.corruptions.num_processes or evaluate.batch_size"
            ) from error

    def _each(
        self, images: Images, positions: Sequence[int], kinds: Iterable[tuple[str, int]]
    ) -> Iterator[tuple[tuple[str, int], Images]]:
        parts = np.array_split(np.arange(len(images)), min(len(images), self._num_processes))
        waiting: deque[tuple[tuple[str, int], list[Future[Images]]]] = deque()
        for kind in kinds:
            futures = [
                self._pool.submit(corrupt, images[part], [positions[i] for i in part], *kind, self._seed)
                for part in parts
            ]
            waiting.append((kind, futures))
            if len(waiting) > 1:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def _result(work: tuple[tuple[str, int], list[Future[Images]]]) -> tuple[tuple[str, int], Images]:
    kind, futures = work
    return kind, np.concatenate([future.result() for future in futures])


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # the processes share the cores already

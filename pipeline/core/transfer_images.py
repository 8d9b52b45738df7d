"""Image files of the data sets of transfer, read as trex, the code base beside the paper, reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile

from pipeline.core.errors import MissingDataError
from pipeline.core.real_images import UNREADABLE, FolderImages, read_rgb

_FLAG = threading.Lock()


@dataclass(frozen=True)
class TransferImages(FolderImages):
    """Image files of which a truncated one counts, with what is there of it: so it does in trex's numbers."""

    def image(self, position: int) -> NDArray[np.uint8]:
        """One image, uint8 [H, W, 3]. Raises `MissingDataError` naming set and file when nothing of it can be read."""
        path = self.files[position]
        try:
            return read_rgb(path)
        except UNREADABLE:
            pass
        try:
            with _truncated_ones_too():
                return read_rgb(path)
        except UNREADABLE as error:
            raise MissingDataError(
                f"{self.name}: image {str(path)!r} cannot be read ({error}); put an intact copy in its place and run "
                "again"
            ) from error


@contextmanager
def _truncated_ones_too() -> Iterator[None]:
    """PIL has one flag for the whole process, which trex sets for good; here it is set for one damaged file at a time.

    Without the lock, of two threads the one that is done first would take the flag from the other, and the other would
    put it back for good.
    """
    with _FLAG:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            yield
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before

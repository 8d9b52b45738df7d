"""How long each stage of a chain took, added up over all sessions that worked on it, killed ones too."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.core.artifact import Store
from pipeline.core.errors import WorkError


class StageClock:
    """Wall seconds by stage, kept in a JSON file under the storage root so that a SIGKILL loses seconds of it at most.

    Args:
        store: the storage root.
        path: of the file; it belongs to one chain.
        beat_s: seconds between two writes while a stage runs.
    """

    def __init__(self, store: Store, path: str, beat_s: float = 2) -> None:
        self.store = store
        self.path = path
        self.beat_s = beat_s
        self.seconds: dict[str, float] = dict(store.read_json(path)) if store.exists(path) else {}
        """Wall seconds by stage."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block as the stage's, whether it ends, raises or is killed."""
        before, start = self.seconds.get(name, 0.0), time.monotonic()
        ended = threading.Event()

        def keep() -> None:
            self.seconds[name] = before + time.monotonic() - start
            self.store.write_json(self.path, {key: round(value, 2) for key, value in self.seconds.items()})

        def beat() -> None:
            while not ended.wait(self.beat_s):
                with suppress(WorkError):  # the stage itself meets a full disk, and says so
                    keep()

        thread = threading.Thread(target=beat, name=f"clock of {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            with suppress(WorkError):
                keep()

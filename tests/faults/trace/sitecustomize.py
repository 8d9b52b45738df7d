"""On PYTHONPATH of a cluster under test: every process notes in one file when it begins and ends a shard.

It counts what the stage does from outside the stage's own counting. Python imports a module of this name at its start.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import time
from typing import Any

TRACE = os.environ.get("SOAK_TRACE")
TRACED = "pipeline.core.shard_maker"


def note(event: str, shard: int) -> None:
    """Append a line: one write, so lines of many processes never mix."""
    with open(str(TRACE), "ab", buffering=0) as file:
        file.write(f"{event} {shard} {os.getpid()} {time.time():.3f}\n".encode())


def watch(module: Any) -> None:
    make = module.ShardMaker.make

    def traced(self: Any, shard: int) -> Any:
        note("begin", shard)
        try:
            summary = make(self, shard)
        except Exception:
            note("fail", shard)
            raise
        note("end", shard)
        return summary

    module.ShardMaker.make = traced


class Tracer(importlib.abc.MetaPathFinder):
    """Finds the module as Python would, and changes it once it is loaded."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != TRACED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            watch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if TRACE:
    sys.meta_path.insert(0, Tracer())

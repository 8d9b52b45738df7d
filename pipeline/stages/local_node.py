"""A node of Ray on this machine starts however long its agents take.

Ray 2.60's raylet waits 15 s, hard-coded, for the files in which its two agents, Python processes, name the ports they
took, and ends itself when one is not there: beside other work on two cores, always (docs/operations.md;
https://github.com/ray-project/ray/issues/65983). So the ports are chosen before it starts, and named where it looks.
"""

from __future__ import annotations

import inspect
import os
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray._private import services

AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
"""As `services.start_raylet` calls them, and the files. The raylet takes all but the last as options too."""
PORTS = range(20000, 32768)
"""Below those that Linux (from 32768) and macOS (from 49152) give to whoever asks for any."""
AGENT_TIMEOUT_MS = "120000"
"""How long a raylet asks for its runtime environment agent before it ends itself. Ray's own: 30 s."""


@contextmanager
def agents_may_be_late() -> Iterator[None]:
    """Nodes that this process starts in it do not wait for their agents.

    An agent that takes more than half a minute comes too late for Ray's metrics of its node; nothing else misses it.
    """
    start, signature = services.start_raylet, inspect.signature(services.start_raylet)

    def start_raylet(*positional: Any, **named: Any) -> Any:
        call = signature.bind(*positional, **named)
        settings = call.arguments
        settings.update(zip(AGENT_PORTS, _free_ports(len(AGENT_PORTS)), strict=True))
        name = AGENT_PORTS[-1]
        Path(settings["session_dir"], f"{name}_{settings['node_id']}").write_text(str(settings[name]))
        return start(*call.args, **call.kwargs)

    os.environ.setdefault("RAY_agent_register_timeout_ms", AGENT_TIMEOUT_MS)
    services.start_raylet = start_raylet
    try:
        yield
    finally:
        services.start_raylet = start


def _free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().choice(PORTS)  # a seeded generator would give two processes the same
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        found += [port] if port not in found else []
    return found

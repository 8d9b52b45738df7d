"""A process of tests/core/test_lease.py: makes what is missing of a set under the lease, and logs what it makes.

python -m tests.core.lease_worker ROOT LOG THINGS SECONDS_EACH
"""

from __future__ import annotations

import os
import sys
import time

from pipeline.core.artifact import Store
from pipeline.core.lease import LeaseTiming, lease

TIMING = LeaseTiming(heartbeat_s=0.2, ttl_s=3, poll_s=0.1)


def main(root: str, log: str, things: int, seconds_each: float) -> None:
    store = Store.open(root)
    wanted = {f"thing-{number}" for number in range(things)}

    def missing() -> list[str]:
        return sorted(wanted.difference(store.list_names("things")))

    with lease(store, "lease", until=lambda: not missing(), timing=TIMING) as held:
        for name in missing() if held else ():
            note(log, "begins", name)
            time.sleep(seconds_each)
            store.write_bytes(f"things/{name}", str(os.getpid()).encode())
            note(log, "made", name)


def note(log: str, what: str, name: str) -> None:
    """One line in one write: lines of several processes do not mix."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{what} {name} {os.getpid()}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))

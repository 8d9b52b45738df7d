"""What pytest-xdist's processes take at a time: a file, or all that start clusters.

Not `--dist loadgroup`: pytest-xdist 3.8 writes a test's group into its name, and pytest 9.2 does not keep it there, so
every test went to any process without a word.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

ONE_AT_A_TIME = (
    "tests/faults/",
    "tests/jobs/test_every_job.py",
    "tests/jobs/test_submit.py",
    "tests/stages/test_tracking_servers.py",
)
"""Files that start clusters or servers of their own: two at once take each other's cores until something times out."""
CLUSTERS = "clusters"


def lane(nodeid: str) -> str:
    """That a test (`tests/FILE::NAME`) belongs to: its file, or `CLUSTERS`."""
    return CLUSTERS if nodeid.startswith(ONE_AT_A_TIME) else nodeid.partition("::")[0]


class LaneScheduling(LoadScopeScheduling):
    """A process works a lane off before it takes the next one."""

    def _split_scope(self, nodeid: str) -> str:
        return lane(nodeid)

"""Ray's own program `ray`, but that the agents of a node it starts may be late, as a local Ray's in `pipeline`."""

from __future__ import annotations

import sys
from pathlib import Path

from ray.scripts.scripts import main

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parent.parent)  # for this process alone: jobs are to find what they were sent
    from pipeline.stages.local_node import agents_may_be_late

    with agents_may_be_late():
        main()

"""What a cluster does: Ray graphs and worker code, one module per stage."""

import os

# Ray reads both when it is imported, by whichever module here comes first. Usage statistics would try to leave a closed
# network; the dedup of worker logs would hide a failure that many actors share, and epochs of trainings side by side.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "0")

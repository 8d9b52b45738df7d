"""Ray Data's settings of this process, for jobs that tell of their work themselves."""

from __future__ import annotations

import logging

import ray.data


def quiet() -> ray.data.DataContext:
    """No lines of Ray's own about its executions: ours are for people; Ray's repeat every second in a job's log."""
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # how to turn its bars on again
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.verbose_progress = False
    return context


def leave_words_to_us() -> None:
    """Quiet, and no end since one row takes long: `pipeline.stages.pool_watch.watched` looks after both."""
    quiet().execution_no_progress_timeout_s = -1  # it counts rows, and a shard may take longer than its half hour

"""Run a job on a Ray cluster: python -m jobs.submit -- python -m jobs.generate --preset fashion --root s3://bucket/x.

The directory of this code goes with it, without what .gitignore and .rayignore name; its exit code is this command's.
Sent again while it runs, it is followed; sent again after it ended, it goes on where it stopped.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli import FiniteRange, print_summary, run_job
from pipeline.core.errors import WorkError


@click.command(help=__doc__)
@click.option(
    "--address", metavar="URL", help="Of the cluster's dashboard. Default: RAY_API_SERVER_ADDRESS, or port 8265 here."
)
@click.option("--name", metavar="NAME", help="Begins the job's id; two names run one command twice at a time.")
@click.option("--env", "names", multiple=True, metavar="NAME", help="One more variable to send, no secret; repeatable.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="A variable that the nodes must have.")
@click.option("--num-cpus", type=FiniteRange(min=0), default=1, show_default=True, help="Held for the command.")
@click.option(
    "--max-mib", type=FiniteRange(min=0, min_open=True), default=64, show_default=True, help="Largest package."
)
@click.option("--no-wait", is_flag=True, help="Send and leave; do not follow the log.")
@click.option("--dry-run", is_flag=True, help="Print what would be sent and stop.")
@click.option("--json", "json_output", is_flag=True, help="Print one JSON object as the last line.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND...")
def main(
    address: str | None,
    name: str | None,
    names: tuple[str, ...],
    secrets: tuple[str, ...],
    num_cpus: float,
    max_mib: float,
    no_wait: bool,
    dry_run: bool,
    json_output: bool,
    words: tuple[str, ...],
) -> None:
    """Send a command with this directory to a cluster, and follow it."""
    from pipeline.core.credentials import covered
    from pipeline.core.submission import check_command, entrypoint, job_environment, shown_address, submission_id

    folder = Path(__file__).resolve().parent.parent
    check_command(words, folder)
    line = entrypoint(words, secrets)
    base = submission_id(words, name)
    variables = job_environment(os.environ, names)

    from pipeline.stages.following import follow
    from pipeline.stages.submission import (
        DEFAULT_ADDRESS,
        check_size,
        connect,
        package_sizes,
        sender,
        sent_when_and_by,
        submit_or_follow,
    )

    sizes = package_sizes(folder)
    check_size(sizes, max_mib)
    where = (address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS).rstrip("/")
    shown = shown_address(where)
    sent: dict[str, Any] = {
        "address": shown, "submission_id": base, "command": shlex.join(words), "variables": sorted(variables),
        "secrets": sorted(secrets), "mib": round(sum(sizes.values()) / 2**20, 2),
    }  # fmt: skip
    if dry_run:
        print_summary("\n".join(f"{key}: {value}" for key, value in sent.items()), sent, json_output)
        return
    client = connect(where)

    def submit(job_id: str) -> str:
        return client.submit_job(
            entrypoint=line,
            submission_id=job_id,
            entrypoint_num_cpus=num_cpus,
            metadata=sender(),
            runtime_env={"working_dir": str(folder), "env_vars": variables},
        )

    job_id, under_way = submit_or_follow(client, base, submit)
    again = shlex.join(
        ["python", "-m", "jobs.submit", *(covered(word) for word in sys.argv[1:] if word != "--no-wait")]
    )
    if under_way is None:
        click.echo(f"sent: {job_id} at {shown}", err=True)
    else:  # its code is its sender's, who may be somebody else
        click.echo(f"already under way: {job_id} at {shown}, {sent_when_and_by(under_way)}, with that code", err=True)
    sent["submission_id"] = job_id
    if no_wait:
        print_summary(f"follow or resume: {again}", {**sent, "status": "sent"}, json_output)
        return
    try:
        ended = follow(client, job_id)
    except KeyboardInterrupt:
        raise WorkError(f"no longer followed, {job_id} goes on; follow: {again}; end: ray job stop {job_id}") from None
    code = ended.driver_exit_code
    print_summary(f"{job_id}: {ended.status}", {**sent, "status": str(ended.status), "exit_code": code}, json_output)
    if ended.status != "SUCCEEDED":
        click.echo(f"resume: {again}", err=True)
        if code is None:
            raise WorkError(f"{job_id} was {str(ended.status).lower()}: {ended.message}")
        sys.exit(code if 0 < code < 126 else 1)


if __name__ == "__main__":
    run_job(main)

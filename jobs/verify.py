"""`python -m jobs.verify`: check every image of a set; `--repair` makes what is bad or missing again."""

from __future__ import annotations

import click

from pipeline.cli import JobContext, job_options, run_job


@click.command()
@click.option("--repair", is_flag=True, help="Make bad and missing shards again.")
@job_options
def main(job: JobContext, repair: bool) -> None:
    """Check every shard of an image set against its ledger and its recipe: counts, ids, sha256, decodability.

    Exit code 1 when something is wrong and not repaired.
    """
    from pipeline.core.errors import WorkError
    from pipeline.stages.verify import verify

    found = verify(job.config, job.store, lambda line: click.echo(line, err=True), repair=repair)
    faults = len(found["bad"]) + len(found["missing"]) + len(found["manifest_faults"])
    where = job.store.uri(found["images_dir"])
    if faults and not repair:
        total = found["shards"] + len(found["bad"]) + len(found["missing"])
        raise WorkError(
            f"{where}: {len(found['bad'])} bad and {len(found['missing'])} missing of {total} shards, "
            f"{len(found['manifest_faults'])} wrong numbers in the manifest; run again with --repair to mend it"
        )
    if found["still_bad"]:
        raise WorkError(
            f"{where}: {len(found['still_bad'])} of {len(found['bad']) + len(found['missing'])} shards are bad again "
            "after they were made again; the lines above say how. The prompt table may be damaged: move it away"
        )
    mended = f"; {len(found['repaired'])} made again" if faults else ""
    unfinished = "" if found["finished"] or faults else "; it is not finished"
    old = f"; {len(found['leftovers'])} files of killed writers" if found["leftovers"] else ""
    removed = (" removed" if repair else ", --repair removes them") if old else ""
    sound = f"{found['rows']} images in {found['shards']} shards of {where} are sound"
    job.finish(f"{sound}{mended}{unfinished}{old}{removed}", found)


if __name__ == "__main__":
    run_job(main)

"""Make a class table from your own list of classes: WNIDs, WordNet synset names or plain words.

Example: python -m jobs.build_classes --name shoes --class sandal --class sneaker=gym_shoe.n.01 --class boot=1
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from pipeline.cli import check_outlives, print_summary, run_job
from pipeline.core.artifact import Store
from pipeline.core.class_building import build_class_table, read_class_list
from pipeline.core.classes import class_table_bytes, load_class_table
from pipeline.core.config import Name
from pipeline.core.errors import InputError
from pipeline.core.wordnet import open_wordnet

NUM_SHOWN = 10


@click.command(help=__doc__)
@click.option("--name", required=True, metavar="NAME", help="Name of the table: letters, digits, `_`, `-`, `.`.")
@click.option("--class", "classes", multiple=True, metavar="ENTRY", help="WNID, synset, word or NAME=PICK; repeatable.")
@click.option("--from", "files", multiple=True, metavar="FILE", help="Text file with one entry per line; repeatable.")
@click.option("--source", default="a user's list", show_default=True, metavar="TEXT", help="Where the list comes from.")
@click.option(
    "--root", default="runs", show_default=True, metavar="PATH|URI", help="Where artifacts lie: local, s3://, gs://."
)
@click.option("--replace", is_flag=True, help="Replace a table of this name that holds other classes.")
@click.option("--dry-run", is_flag=True, help="Show the classes and write nothing.")
@click.option("--json", "json_output", is_flag=True, help="Print one JSON object as the last line.")
def main(
    name: str,
    classes: tuple[str, ...],
    files: tuple[str, ...],
    source: str,
    root: str,
    replace: bool,
    dry_run: bool,
    json_output: bool,
) -> None:
    """Parse, build the table, write it, print a summary."""
    check_outlives("--root", root)
    try:
        TypeAdapter(Name).validate_python(name)  # it becomes a file name
    except ValidationError:
        raise InputError(f"--name {name!r} cannot name a file; use at most 64 letters, digits, `_`, `-`, `.`") from None
    entries = [entry for file in files for entry in read_class_list(Path(file))] + list(classes)
    table = build_class_table(open_wordnet(), entries, f"{source}; WordNet 3.0")
    store = Store.open(root)
    path = f"classes/{name}.parquet"
    if not dry_run:
        if store.exists(path) and not replace and load_class_table(store.uri(path)).hash != table.hash:
            raise InputError(f"{store.uri(path)} holds other classes; give another --name, or --replace")
        store.write_bytes(path, class_table_bytes(table))
    shown = [
        f"  {index:4d} {json.dumps(row['class_name'], ensure_ascii=False)} {row['synset']}: {row['definition']}"
        for index, row in enumerate(table.rows[:NUM_SHOWN])
    ]
    if len(table) > NUM_SHOWN:
        shown.append(f"  … and {len(table) - NUM_SHOWN} more")
    uri = store.uri(path)
    first_line = f"{'would write' if dry_run else 'wrote'} {len(table)} classes to {uri}"
    human = "\n".join([first_line, *shown, f"use it with: --set classes={uri}"])
    summary = {"classes": len(table), "path": uri, "hash": table.hash, "written": not dry_run}
    print_summary(human, summary, json_output)


if __name__ == "__main__":
    run_job(main)

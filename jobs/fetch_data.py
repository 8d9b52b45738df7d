"""Find or fetch the data that cannot ship with the code: real Fashion-MNIST and, to build class tables, WordNet 3.0."""

from __future__ import annotations

import click

from pipeline.cli import print_summary, run_job
from pipeline.core.datasets import find_fashion_mnist
from pipeline.core.wordnet import find_wordnet

FINDERS = {"fashion-mnist": find_fashion_mnist, "wordnet": find_wordnet}


@click.command()
@click.argument("datasets", nargs=-1, type=click.Choice(list(FINDERS)))
@click.option("--json", "json_output", is_flag=True, help="Print one JSON object as the last line.")
def main(datasets: tuple[str, ...], json_output: bool) -> None:
    """Find or fetch DATASETS (default: all) and print where each lies.

    Looked for, in this order: the folder named by SYNTHCLONES_DATA (Fashion-MNIST) or SYNTHCLONES_WORDNET, this
    machine's usual places, the cache of an earlier fetch; then fetched into the cache, without root.
    """
    found = {name: str(FINDERS[name]()) for name in datasets or FINDERS}
    print_summary("\n".join(f"{name}: {place}" for name, place in found.items()), found, json_output)


if __name__ == "__main__":
    run_job(main)

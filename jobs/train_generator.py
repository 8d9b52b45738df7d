"""Train the embedded generator from scratch on Fashion-MNIST's real train split. Restartable: run it again to go on."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from pipeline.cli import check_outlives, print_summary, run_job
from pipeline.core.datasets import find_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.generator_config import load_generator_config


@click.command(help=__doc__)
@click.option("--preset", default="fashion", show_default=True, metavar="NAME", help="presets/generators/NAME.yaml")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="E.g. unet.num_steps=100; repeatable.")
@click.option("--data-dir", metavar="PATH", help="Folder of Fashion-MNIST's four .gz files.")
@click.option("--work", default="runs/generator", show_default=True, metavar="PATH", help="Where training states lie.")
@click.option("--out", required=True, metavar="PATH", help="Where the Stable Diffusion directory goes.")
@click.option("--json", "json_output", is_flag=True, help="Print one JSON object as the last line.")
def main(preset: str, overrides: tuple[str, ...], data_dir: str | None, work: str, out: str, json_output: bool) -> None:
    """Parse, train, print a summary."""
    for option, place in (("--out", out), ("--work", work)):
        if "://" in place:  # torch and diffusers would make a local folder `s3:`
            raise InputError(f"{option} {place!r} is a URI; give the path of a disk that all nodes share")
        check_outlives(option, place, takes_uri=False)
    config = load_generator_config(preset, overrides)
    directory = find_fashion_mnist(data_dir)
    from pipeline.core.generator_train import train_generator  # diffusers takes seconds: after the cheap checks

    command = shlex.join(["python", "-m", "jobs.train_generator", *sys.argv[1:]])
    record = train_generator(config, str(directory), Path(work), Path(out), command, click.echo)
    human = (
        f"trained in {record['hours']:.2f} h; VAE {record['vae']['test_psnr_db']:.2f} dB on the test split, "
        f"UNet loss {record['unet']['loss']:.4f}; written to {out}"
    )
    print_summary(human, record, json_output)


if __name__ == "__main__":
    run_job(main)

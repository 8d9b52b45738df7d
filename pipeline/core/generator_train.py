"""The training of the embedded generator, stage by stage: tokenizer, autoencoder, latents, UNet with text encoder."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.core.captions import Captions
from pipeline.core.datasets import load_fashion_mnist
from pipeline.core.errors import InputError
from pipeline.core.generator_config import GeneratorConfig
from pipeline.core.generator_export import check_out, export_pipeline
from pipeline.core.generator_state import claim_work_dir
from pipeline.core.generator_text import CaptionSampler, build_text_encoder, train_tokenizer
from pipeline.core.generator_unet import Denoiser, UnetTrainer, build_unet
from pipeline.core.generator_vae import encode_images, normalise_latents, reconstruction_psnr_db, train_vae

RECORDED_PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "numpy")
PSNR_IMAGES = 2000


def padded_images(images: NDArray[np.uint8]) -> torch.Tensor:
    """Grey uint8 [N, 28, 28] as float32 [N, 1, 32, 32] in [-1, 1], black around."""
    padded = torch.nn.functional.pad(torch.from_numpy(images)[:, None], (2, 2, 2, 2))
    return padded.float() / 127.5 - 1


def train_generator(
    config: GeneratorConfig,
    data_dir: str | None,
    work_dir: Path,
    out_dir: Path,
    command: str,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train from scratch on Fashion-MNIST's train split, or go on from the states in `work_dir`.

    The directory is written at every checkpoint, so an early version of it is there after minutes.

    Args:
        config: everything that decides the weights.
        data_dir: where Fashion-MNIST lies; None looks in the usual places.
        work_dir: training states; must belong to this config.
        out_dir: where the Stable Diffusion directory goes.
        command: how this was called, for the record.
        log: gets progress lines.

    Returns:
        The record, as in `training.json` of the directory.

    Raises:
        InputError: no data, an unknown table or template, a table of more or fewer classes than the images have,
            `work_dir` belongs to another config, or `out_dir` holds what is no model.
        WorkError: the directory would be larger than 25 MB.
    """
    work_dir, out_dir = work_dir.resolve(), out_dir.resolve()
    check_out(out_dir, work_dir)
    torch.set_num_threads(1)  # the parallel parts have threads of their own
    images, label_bytes = load_fashion_mnist(data_dir, "train")
    train = padded_images(images)
    labels = torch.from_numpy(label_bytes).long()
    captions = Captions.of(config)
    if (in_images := int(labels.max()) + 1) != len(captions.by_class):
        raise InputError(
            f"classes={config.classes!r} has {len(captions.by_class)} classes, and the images have {in_images} labels; "
            "give a table in the order of the labels, e.g. fashion_mnist"
        )
    tokenizer = train_tokenizer(captions.texts(), config.text.vocabulary_size)
    sampler = CaptionSampler(captions, tokenizer, config.unet.caption_dropout)
    torch.manual_seed(config.seed)
    denoiser = Denoiser(  # made before the autoencoder is trained: what cannot be built is told before the hours
        build_unet(config.unet, config.vae.latent_channels, config.text.hidden_size),
        build_text_encoder(config.text, tokenizer),
    )

    claim_work_dir(work_dir, config)  # not before: a config that is refused would claim it
    vae, vae_result = train_vae(
        config.vae,
        train,
        config.seed,
        work_dir / "vae.pt",
        config.checkpoint_every_s,
        num_threads=config.num_threads,
        log=log,
    )
    latents = normalise_latents(vae, encode_images(vae, train, config.num_threads))
    test = padded_images(load_fashion_mnist(data_dir, "test")[0])[:PSNR_IMAGES]
    psnr_db = reconstruction_psnr_db(vae, test)
    log(f"autoencoder: {psnr_db:.2f} dB on the test split")

    trainer = UnetTrainer(
        config.unet, denoiser, latents, labels, sampler, seed=config.seed, num_threads=config.num_threads
    )

    def record() -> dict[str, Any]:
        return {
            "command": command,
            "config": config.model_dump(mode="json"),
            "data": "Fashion-MNIST, train split, 60,000 images (arXiv:1708.07747)",
            "vae": {**vae_result, "test_psnr_db": psnr_db},
            "unet": {"steps": trainer.step, "loss": trainer.mean_loss, "seconds": trainer.seconds},
            "hours": (vae_result["seconds"] + trainer.seconds) / 3600,
            "parameters": {
                "vae": sum(p.numel() for p in vae.parameters()),
                "unet": sum(p.numel() for p in denoiser.unet.parameters()),
                "text_encoder": sum(p.numel() for p in denoiser.text_encoder.parameters()),
            },
            "versions": {"python": platform.python_version(), **{name: version(name) for name in RECORDED_PACKAGES}},
        }

    def export() -> None:
        size = export_pipeline(out_dir, vae, trainer.average, tokenizer, record())
        log(f"exported step {trainer.step} to {out_dir}: {size / 1e6:.1f} MB")

    trainer.train(work_dir / "unet.pt", config.checkpoint_every_s, export, log)
    export()
    return record()

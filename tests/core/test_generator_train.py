"""A whole tiny training, and the directory of the generator that ships."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

import pipeline
from pipeline.core import generator_export, generator_train
from pipeline.core.captions import Captions
from pipeline.core.classes import ClassTable, class_table_bytes, load_class_table
from pipeline.core.errors import InputError, WorkError
from pipeline.core.generator_config import load_generator_config
from pipeline.core.generator_text import CONTEXT_LENGTH
from pipeline.core.generator_train import padded_images, train_generator

SHIPPED = Path(pipeline.__file__).parent / "assets" / "generator"
MAX_BYTES = 25_000_000
TINY = (
    "text.hidden_size=16",
    "text.num_layers=1",
    "vae.block_out_channels=[8,8,8]",
    "vae.norm_num_groups=4",
    "vae.num_steps=2",
    "vae.batch_size=4",
    "unet.block_out_channels=[8,8,16]",
    "unet.norm_num_groups=4",
    "unet.num_steps=2",
    "unet.batch_size=4",
    "num_threads=1",
)


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    monkeypatch.setattr(generator_train, "load_fashion_mnist", lambda data_dir, split: (images, labels))


def train(tmp_path: Path, *overrides: str) -> dict:
    config = load_generator_config("fashion", (*TINY, *overrides))
    return train_generator(config, None, tmp_path / "work", tmp_path / "out", "the command", log=lambda _: None)


@pytest.mark.usefixtures("few_images")
def test_a_training_makes_a_directory_that_draws(tmp_path: Path) -> None:
    record = train(tmp_path)
    assert json.loads((tmp_path / "out" / "training.json").read_text()) == record
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (tmp_path / "out").rglob("*"))
    assert record["unet"]["steps"] == 2 and record["command"] == "the command"
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "out", torch_dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    images = loaded("boot", num_inference_steps=2, guidance_scale=2.0, output_type="np").images
    assert images.shape == (1, 32, 32, 3)


@pytest.mark.usefixtures("few_images")
def test_a_second_run_goes_on_and_may_only_move_the_end(tmp_path: Path) -> None:
    constant = "unet.cooldown_fraction=0"
    train(tmp_path, constant)
    assert train(tmp_path, constant, "unet.num_steps=3")["unet"]["steps"] == 3
    with pytest.raises(InputError, match="another training"):
        train(tmp_path, constant, "seed=1")


@pytest.mark.parametrize(
    ("work", "out", "message"),
    [
        ("runs/generator", "runs", "--work"),
        ("work", "work", "--work"),
        ("work", "runs", "holds other things"),
        ("work", "here", "the current folder"),
        ("work", "runs/note.txt", "is no folder"),
        ("work", "runs/note.txt/model", "is no folder"),
        ("runs/note.txt/work", "out", "--work .* is no folder"),
    ],
)
@pytest.mark.usefixtures("few_images")
def test_nothing_but_an_earlier_model_is_ever_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str, out: str, message: str
) -> None:
    for folder in ("runs/images", "runs/generator", "here"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("runs/images/shard.parquet", "runs/training.json", "runs/note.txt"):
        (tmp_path / name).write_text("mine")
    monkeypatch.chdir(tmp_path / "here")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message):
        train_generator(
            load_generator_config("fashion", TINY), None, Path("..", work), Path("..", out), "", log=lambda _: None
        )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("few_images")
def test_the_model_may_lie_in_the_work_folder_and_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    out, neighbours = tmp_path / "model", (tmp_path / "model.old", tmp_path / "model.new")
    for folder in (out, *neighbours):
        folder.mkdir()
    config = load_generator_config("fashion", TINY)
    train_generator(config, None, tmp_path, out, "", log=lambda _: None)
    assert (tmp_path / "unet.pt").exists() and (out / "model_index.json").exists()
    assert all(folder.exists() for folder in neighbours)


@pytest.mark.parametrize("table", ["imagenet100", "five.parquet"])
@pytest.mark.usefixtures("few_images")
def test_a_table_of_other_classes_than_the_images_is_refused(tmp_path: Path, table: str) -> None:
    five = ClassTable(load_class_table("fashion_mnist").rows[:5], "test")
    (tmp_path / "five.parquet").write_bytes(class_table_bytes(five))
    with pytest.raises(InputError, match=r"has (5|100) classes.* 10 labels"):
        train(tmp_path, f"classes={tmp_path / table if '.' in table else table}")
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("few_images")
def test_what_cannot_be_built_is_told_before_the_autoencoder_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ValueError("no such UNet")

    monkeypatch.setattr(generator_train, "build_unet", refuse)
    with pytest.raises(ValueError, match="no such UNet"):
        train(tmp_path)
    assert not (tmp_path / "work").exists()


@pytest.mark.usefixtures("few_images")
def test_a_model_that_is_too_large_is_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generator_export, "MAX_BYTES", 1000)
    with pytest.raises(WorkError, match="use fewer channels"):
        train(tmp_path)
    assert not (tmp_path / "out").exists()


def test_images_are_padded_with_black_to_minus_one_and_one() -> None:
    white = np.full((1, 28, 28), 255, np.uint8)
    padded = padded_images(white)
    assert padded.shape == (1, 1, 32, 32) and padded.dtype == torch.float32
    assert padded[0, 0, 2:30, 2:30].unique().tolist() == [1.0]
    assert padded.sum().item() == 28 * 28 - (32 * 32 - 28 * 28)


def test_the_shipped_generator_is_small_and_only_safetensors() -> None:
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors"}


@pytest.fixture(scope="module")
def shipped() -> StableDiffusionPipeline:
    loaded = StableDiffusionPipeline.from_pretrained(SHIPPED, torch_dtype=torch.float32, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_the_shipped_tokenizer_cuts_no_caption(shipped: StableDiffusionPipeline) -> None:
    tokenizer = shipped.tokenizer
    texts = Captions.of(load_generator_config("fashion")).texts()
    assert tokenizer.model_max_length == CONTEXT_LENGTH
    assert max(len(tokenizer(text).input_ids) for text in texts) <= CONTEXT_LENGTH


def test_the_shipped_generator_draws_what_the_prompt_says(shipped: StableDiffusionPipeline) -> None:
    captions = Captions.of(load_generator_config("fashion")).by_class

    def draw(label: int) -> np.ndarray:
        noise = torch.Generator().manual_seed(5)
        prompts = [captions[label][0][0]] * 8
        images = shipped(prompts, num_inference_steps=15, guidance_scale=2.0, output_type="np", generator=noise).images
        assert images.shape == (8, 32, 32, 3)
        return images.mean(axis=(0, 3))

    trouser, sneaker = draw(1), draw(7)
    # A trouser is bright from top to bottom, a sneaker only in the lower middle and across the whole width.
    assert trouser[4:8].mean() > 3 * sneaker[4:8].mean()
    assert sneaker[16:22, 4:8].mean() > 3 * trouser[16:22, 4:8].mean()

"""Training of the UNet and the text encoder on tiny settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.core.captions import Captions
from pipeline.core.errors import InputError
from pipeline.core.generator_config import GeneratorConfig, TextConfig, UnetConfig
from pipeline.core.generator_text import CaptionSampler, build_text_encoder, train_tokenizer
from pipeline.core.generator_unet import Denoiser, UnetTrainer, build_unet

TEXT = TextConfig(vocabulary_size=514, hidden_size=16, num_layers=1, num_heads=2)
UNET = UnetConfig(
    block_out_channels=(8, 8, 16), norm_num_groups=4, num_heads=2, num_steps=40, batch_size=16, warmup_steps=4
)


def new_trainer(num_steps: int = 40) -> UnetTrainer:
    torch.manual_seed(0)
    captions = Captions.of(GeneratorConfig(templates=("c",)))
    tokenizer = train_tokenizer(captions.texts(), TEXT.vocabulary_size)
    denoiser = Denoiser(build_unet(UNET, 4, TEXT.hidden_size), build_text_encoder(TEXT, tokenizer))
    labels = torch.arange(50) % 10
    latents = torch.randn(10, 4, 8, 8)[labels]
    config = UNET.model_copy(update={"num_steps": num_steps})
    return UnetTrainer(
        config, denoiser, latents, labels, CaptionSampler(captions, tokenizer, 0.1), seed=0, num_threads=2
    )


def test_the_loss_goes_down() -> None:
    trainer = new_trainer()
    losses = [trainer.train_step() for _ in range(40)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    whole = new_trainer()
    for _ in range(6):
        whole.train_step()
    first = new_trainer()
    for _ in range(3):
        first.train_step()
    first.save(tmp_path / "state.pt")
    second = new_trainer()
    second.load(tmp_path / "state.pt")
    for _ in range(3):
        second.train_step()
    assert second.step == 6
    for left, right in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("old", "step", "new", "moves"),
    [
        (40, 28, 60, True),
        (60, 28, 40, True),
        (40, 29, 60, False),
        (60, 29, 40, False),
        (40, 40, 41, False),
        (40, 40, 30, False),
        (40, 40, 40, True),
    ],
)
def test_the_end_moves_only_before_the_cooldown(tmp_path: Path, old: int, step: int, new: int, moves: bool) -> None:
    first, second = new_trainer(old), new_trainer(new)
    first.step = step
    first.save(tmp_path / "unet.pt")
    if moves:
        second.load(tmp_path / "unet.pt")
        assert second.step == step
    else:
        with pytest.raises(InputError, match=f"unet.num_steps={old}"):
            second.load(tmp_path / "unet.pt")


def test_every_weight_gets_a_gradient() -> None:
    trainer = new_trainer()
    trainer.train_step()
    assert all(parameter.grad is not None for parameter in trainer.denoiser.parameters())
    assert any(parameter.grad.abs().max() > 0 for parameter in trainer.denoiser.text_encoder.parameters())


def test_the_average_follows_the_weights() -> None:
    trainer = new_trainer()
    start = [parameter.clone() for parameter in trainer.average.parameters()]
    trainer.train_step()
    decay = 2 / 11
    for before, average, now in zip(start, trainer.average.parameters(), trainer.denoiser.parameters(), strict=True):
        torch.testing.assert_close(average.data, decay * before + (1 - decay) * now.data)


@pytest.mark.parametrize(("step", "rate"), [(0, 0.25), (3, 1), (27, 1), (34, 0.5), (39, 1 / 12)])
def test_learning_rate(step: int, rate: float) -> None:
    assert new_trainer().learning_rate(step) == pytest.approx(UNET.learning_rate * rate)


def test_checkpoints_are_written_and_training_ends_at_its_last_step(tmp_path: Path) -> None:
    trainer, exports = new_trainer(num_steps=3), []
    trainer.train(tmp_path / "unet.pt", 0.0, lambda: exports.append(trainer.step), log=lambda _: None)
    assert exports == [1, 2, 3]
    again = new_trainer(num_steps=3)
    again.train(tmp_path / "unet.pt", 0.0, lambda: exports.append(-1), log=lambda _: None)
    assert again.step == 3 and exports == [1, 2, 3]

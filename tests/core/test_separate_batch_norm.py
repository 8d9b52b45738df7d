"""Batch norms apart for the two kinds of images."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from pipeline.core.classifier import build_classifier, weights_to_bytes
from pipeline.core.mixing import Block
from pipeline.core.separate_batch_norm import SeparateBatchNorm, plain_state, separate_batch_norms
from pipeline.core.train_config import TrainConfig

HALF = Block(1, 2)  # rows 0, 2, 4, … are real


def features(real: float, synthetic: float, images: int = 8, crops: int = 1) -> torch.Tensor:
    noise = torch.randn(images * crops, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    kinds = torch.tensor([real, synthetic]).repeat(images // 2).repeat_interleave(crops)
    return noise + kinds[:, None, None, None]


@pytest.mark.parametrize("crops", [1, 3])
def test_each_kind_is_normalised_by_its_own_statistics_which_stay_apart(crops: int) -> None:
    norm = SeparateBatchNorm(nn.BatchNorm2d(3, momentum=1.0), HALF, images=8)
    rows = features(10.0, -4.0, crops=crops)
    output = norm(rows)
    is_real = torch.tensor([True, False]).repeat(4).repeat_interleave(crops)
    for kind, own in ((is_real, norm.real), (~is_real, norm.synthetic)):
        torch.testing.assert_close(own.running_mean, rows[kind].mean((0, 2, 3)))
        torch.testing.assert_close(output[kind].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(output[kind], nn.BatchNorm2d(3)(rows[kind]))


def test_gradients_reach_each_kind_s_own_weights() -> None:
    norm = SeparateBatchNorm(nn.BatchNorm2d(3), HALF, images=8)
    norm(features(1.0, 2.0))[::2].square().sum().backward()  # of the real rows only
    assert norm.real.weight.grad.abs().sum() > 1
    assert norm.synthetic.weight.grad.abs().sum() == 0


def test_scoring_uses_the_real_images_norm_for_every_image() -> None:
    norm = SeparateBatchNorm(nn.BatchNorm2d(3, momentum=1.0), HALF, images=8)
    norm(features(10.0, -4.0))
    norm.eval()
    rows = features(3.0, 3.0, images=2)
    torch.testing.assert_close(norm(rows), norm.real(rows))
    assert (norm(rows) - norm.synthetic.eval()(rows)).abs().mean() > 1


def test_a_whole_network_publishes_a_plain_resnet50_with_the_real_statistics() -> None:
    settings = TrainConfig(input_size=32, num_workers=1, batch_size=8)
    network = separate_batch_norms(build_classifier(settings, 10), HALF, images=8)
    assert sum(isinstance(module, SeparateBatchNorm) for module in network.modules()) == 53
    images = torch.rand(8, 3, 32, 32)
    images[1::2] += 3
    network.train()(images)
    plain = build_classifier(settings.model_copy(update={"seed": 9}), 10)
    plain.load_state_dict(dict(plain_state(network)))
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), network.eval()(images))
    first = network.bn1
    assert (first.real.running_mean - first.synthetic.running_mean).abs().max() > 0.01
    torchvisions = torchvision.models.resnet50(num_classes=10)
    torchvisions.fc = nn.Linear(2048, 10, bias=False)
    assert set(plain_state(network)) == set(torchvisions.state_dict())
    assert len(weights_to_bytes(network)) == len(weights_to_bytes(plain))


def test_the_norms_of_both_kinds_start_alike() -> None:
    network = separate_batch_norms(nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)), HALF, images=8)
    rows = features(1.0, 1.0)
    torch.testing.assert_close(network[1].real.weight, network[1].synthetic.weight)
    assert network[1].real.weight is not network[1].synthetic.weight
    assert network(rows).shape == rows.shape

"""The configuration of a training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.core.frozen import Frozen


class TrainConfig(Frozen):
    """ResNet50 by SGD, values of facts on the paper's sibling code base unless a preset says otherwise."""

    data: Literal["synthetic", "real"] = "synthetic"
    """`real` trains the twin: as many real training images per class as `images_per_class`."""
    seed: int = Field(0, ge=0)
    """Of the initial weights, shuffling and augmentation."""
    input_size: int = Field(224, ge=16)
    """Pixels of the square input."""
    epochs: int = Field(100, ge=1)
    """Passes over the images."""
    batch_size: int = Field(256, ge=2)
    """Global batch, over all workers."""
    learning_rate: float = Field(0.1, gt=0)
    """Peak, for a batch of 256; scaled linearly with `batch_size`."""
    final_learning_rate: float = Field(1e-6, ge=0)
    """End of the cosine, not scaled."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of SGD, without Nesterov."""
    weight_decay: float = Field(1e-4, ge=0)
    """On weights only: none on biases and norms."""
    warmup_epochs: float = Field(10, ge=0)
    """Linear warm-up from 0."""
    head: Literal["cosine", "linear"] = "cosine"
    """Bias-free cosine softmax, or a plain linear layer."""
    temperature: float = Field(0.1, gt=0)
    """tau of the cosine head."""
    augmentation: Literal["pytorch"] = "pytorch"
    """RandomResizedCrop and horizontal flip."""
    min_crop_scale: float = Field(0.08, gt=0, le=1)
    """Smallest share of the area that a random crop keeps."""
    mixed_precision: Literal["none", "bfloat16"] = "none"
    """Autocast dtype of forward and backward."""
    num_workers: int = Field(2, ge=1)
    """DDP processes."""
    num_cpus_per_worker: float = Field(1, gt=0)
    """CPUs that Ray reserves for a worker."""
    torch_threads: int = Field(1, ge=1)
    """Intra-op threads of a worker."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model trains; there is no fallback from one to the other."""
    ingest: Literal["memory", "stream"] = "memory"
    """`memory` decodes a worker's share once; `stream` decodes every epoch through Ray Data with bounded memory."""
    max_memory_gib: float = Field(4, gt=0)
    """`memory` refuses a share larger than this."""
    checkpoint_every_epochs: int = Field(5, ge=1)
    """Epochs between checkpoints; the last epoch always has one."""
    max_failures: int = Field(3, ge=0)
    """Restarts after a lost worker."""

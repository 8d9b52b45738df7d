"""Settings of the looks at features and images beyond accuracy: transfer, feature analysis, audit."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.core.frozen import Frozen

SMALL_SETS = ("aircraft", "cars", "dtd", "eurosat", "flowers", "pets", "food101", "sun397")
LONG_TAIL_SETS = ("inat2018", "inat2019")
COG_SETS = ("cog_l1", "cog_l2", "cog_l3", "cog_l4", "cog_l5")


class TransferConfig(Frozen):
    """Linear probes on frozen features; values of trex, the code base beside the paper."""

    datasets: tuple[str, ...] = (*SMALL_SETS, *LONG_TAIL_SETS, *COG_SETS)
    """Names from docs/transfer.md, or folders of your own; default: the paper's 15."""
    data_dir: str = "data"
    """Folder under which the named sets lie, laid out as docs/transfer.md says."""
    probe_seeds: tuple[Annotated[int, Field(ge=0, lt=2**32)], ...] = Field((0, 1, 2), min_length=1)
    """Each draws another validation part and another search; the result is their mean."""
    split_seed: int = Field(0, ge=0)
    """Of the trainval and test parts of sets that come without (EuroSAT, digits, one folder)."""
    classifier: Literal["auto", "lbfgs", "sgd"] = "auto"
    """`auto`: logistic regression by L-BFGS on small sets, SGD on large ones, as the paper has it."""
    num_trials: int = Field(30, ge=1)
    """Of Optuna's search."""
    validation_share: float = Field(0.2, gt=0, lt=1)
    """Of each class of trainval, rounded down but at least an image, for the search; then all of it is trained on."""
    lbfgs_max_iterations: int = Field(2000, ge=1)
    """Of the L-BFGS solver."""
    sgd_epochs: int = Field(100, ge=1)
    """Passes over the features."""
    sgd_batch_size: int = Field(1024, ge=1)
    """Features of one SGD step."""
    batch_size: int = Field(256, ge=1)
    """Images of one forward."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where features are computed and SGD runs (L-BFGS is scikit-learn's and runs on the CPU); there is no fallback."""
    torch_threads: int = Field(2, ge=1)
    """Intra-op threads."""


class AnalyzeConfig(Frozen):
    """Constants of the feature metrics: their absolute values mean nothing without these."""

    sparsity_threshold: float = Field(1e-5, ge=0)
    """Entries of an L2-normalised feature below this count as zero."""
    coding_eps_squared: float = Field(0.5, gt=0)
    """eps squared of the coding length."""
    tsne_images: int = Field(2000, ge=0)
    """Test images in the t-SNE picture, equally many of each class; 0 draws none."""
    tsne_perplexity: float = Field(30, gt=0)
    """Of t-SNE."""


class ClipConfig(Frozen):
    """Which CLIP model."""

    id: str = ""
    """A local directory or a hub id with safetensors, such as `openai/clip-vit-large-patch14`; empty: none."""
    revision: str | None = None
    """Commit of a hub id, 40 hex digits. Not used for directories."""


class AuditConfig(Frozen):
    """What an audit looks at, and where its limits lie."""

    clip: ClipConfig = ClipConfig()
    """Without one, the audit has no say about what the images show."""
    clip_prompt: str = Field("a photo of a {}", pattern=r"^[^{}]*\{\}[^{}]*$")
    """The text a class is looked for with; `{}` is its name."""
    clip_images_per_class: int = Field(50, ge=1)
    """CLIP sees the good ones among the first so many images of each class."""
    duplicate_distance: int = Field(4, ge=0, le=64)
    """Bits by which perceptual hashes (64 bits) of near-duplicates differ at most."""
    pairs_per_class: int = Field(2000, ge=2)
    """The first images of each class that are compared with each other."""
    worst_classes: int = Field(20, ge=1, le=200)
    """Shown with pictures."""
    pictures_per_class: int = Field(12, ge=1, le=50)
    """Of each shown class."""
    batch_size: int = Field(64, ge=1)
    """Images of one forward of CLIP."""
    num_actors: int = Field(1, ge=1)
    """Workers with a CLIP each."""
    num_cpus_per_actor: float = Field(1, ge=0)
    """CPUs that Ray reserves for an actor."""
    num_gpus_per_actor: float = Field(0, ge=0)
    """GPUs that Ray reserves for an actor."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where CLIP runs; there is no fallback."""

    @model_validator(mode="after")
    def _consistent(self) -> AuditConfig:
        if self.device == "cuda" and self.num_gpus_per_actor == 0:
            raise ValueError("device is cuda but num_gpus_per_actor is 0; give e.g. num_gpus_per_actor: 1")
        return self

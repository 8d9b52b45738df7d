"""Bad input over all commands: one `error:` line that says what, where and how, the right exit code, nothing written.

Most cases run in this process, because importing torch and Ray takes a process seconds; a few are real processes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.core.classes import ClassTable, class_table_bytes, load_class_table
from tests.bad_input import Case, Place, arguments, check, tree
from tests.conftest import Cli

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda tmp: (tmp / name).write_bytes(content.encode() if isinstance(content, str) else content)


def pickled_model(tmp: Path) -> None:
    shutil.copytree(os.environ["TINY_MODEL"], tmp / "pickled")
    for path in (tmp / "pickled").rglob("*.safetensors"):
        path.rename(path.with_suffix(".bin"))


def real_folder(tmp: Path, spoil: str | None = None) -> None:
    for wnid in load_class_table("fashion_mnist").wnids:
        (tmp / "real" / wnid).mkdir(parents=True)
        (tmp / "real" / wnid / "0.png").write_bytes(b"no picture")
    if spoil:
        shutil.rmtree(tmp / "real" / spoil)


FIRST_WNID = load_class_table("fashion_mnist").wnids[0]
EMPTY_TABLE = class_table_bytes(ClassTable([], "nowhere"))

CASES = {
    # what is asked for
    "unknown preset": Case("demo", "--preset fashon", 2, ("--preset 'fashon'", "did you mean 'fashion'")),
    "no preset": Case("generate", "", 2, ("give --preset", "fashion_demo")),
    "unknown option": Case("study", "--preset fashion --onyl guidance", 2, ("--onyl", "did you mean '--only'")),
    "value without a key": Case("train", "--preset fashion --set 5", 2, ("KEY=VALUE",)),
    "bad yaml": Case("generate", "--config @tmp/a.yaml", 2, ("a.yaml", "line 1"), write("a.yaml", "train: {a: 1")),
    "yaml list": Case("train", "--config @tmp/a.yaml", 2, ("a.yaml", "list"), write("a.yaml", "- 1")),
    "yaml runs code": Case(
        "demo", "--config @tmp/a.yaml", 2, ("not valid YAML",), write("a.yaml", "x: !!python/object/apply:os.getpid []")
    ),
    "no config file": Case("evaluate", "--config @tmp/none.yaml", 2, ("none.yaml", "does not exist")),
    "unknown key": Case(
        "generate", "--preset fashion --set recipe.guidence_scale=3", 2, ("did you mean 'guidance_scale'",)
    ),
    "unknown key in a file": Case(
        "demo", "--config @tmp/a.yaml", 2, ("'train.epoch'", "'epochs'"), write("a.yaml", "train: {epoch: 3}")
    ),
    "wrong type": Case("train", "--preset fashion --set train.epochs=many", 2, ("train.epochs", "'many'")),
    "negative count": Case("generate", "--preset fashion --images-per-class -3", 2, ("images_per_class", "-3")),
    "zero count": Case("generate", "--preset fashion --set generate.batch_size=0", 2, ("generate.batch_size",)),
    "no number": Case("train", "--preset fashion --set train.learning_rate=.nan", 2, ("train.learning_rate",)),
    "unknown study": Case("study", "--preset fashion --study fashoin", 2, ("did you mean 'fashion'",)),
    "unknown axis": Case("study", "--preset fashion --only recipes", 2, ("'recipes'", "did you mean 'recipe'")),
    "study without axes": Case(
        "study", "--preset fashion --study @tmp/s.yaml", 2, ("s.yaml", "axes"), write("s.yaml", "seeds: [1]")
    ),
    "no part of the set": Case("generate", "--preset fashion --shards 3:2 @tiny", 2, ("--shards '3:2'", "FIRST:STOP")),
    "extra images of nobody": Case(
        "generate",
        "--preset fashion --per-class @tmp/g.csv @tiny",
        2,
        ("g.csv", "line 2", "'Shirtt'", "did you mean 'Shirt'"),
        write("g.csv", "class,images\nShirtt,50\n"),
    ),
    "extra images beside nothing": Case(
        "generate",
        "--preset fashion --per-class @tmp/g.csv @tiny",
        2,
        ("beside a finished set", "jobs.generate"),
        write("g.csv", "class,images\nShirt,50\n"),
    ),
    "extra images and a part": Case(
        "generate", "--preset fashion --per-class @tmp/g.csv --shards 0:1 @tiny", 2, ("--shards", "--per-class")
    ),
    "extra images of a twin": Case(
        "train",
        '--preset fashion --set train.data=real --set train.extra_images={"n02817516":5}',
        2,
        ("extra_images", "real"),
    ),
    # what is sent to a cluster
    "sent job misspelt": Case("submit", "-- python -m jobs.genrate", 2, ("did you mean 'jobs.generate'",)),
    "sent shell command": Case("submit", "-- rm -rf x", 2, ("'rm -rf x'", "python -m MODULE")),
    "sent under a path": Case("submit", "--name ../a -- python -m jobs.demo", 2, ("--name '../a'",)),
    "sent without a variable": Case("submit", "--env NO_SUCH_X -- python -m jobs.demo", 2, ("NO_SUCH_X", "not set")),
    "sent value of a secret": Case("submit", "--secret A=b -- python -m jobs.demo", 2, ("its name, not its value",)),
    **{
        f"sent to {address}": Case("submit", f"--address {address} -- python -m jobs.demo", 2, ("is not http(s)://",))
        for address in ("head:8265", "http://[head", "http://head:port", "http://head:99999")
    },
    "sent to nobody": Case("submit", "--address http://127.0.0.1:9 -- python -m jobs.demo", 2, ("no cluster answers",)),
    # classes and prompts
    "unknown class table": Case("demo", "--set classes=fashion_mnits", 2, ("did you mean 'fashion_mnist'",)),
    "no class table": Case("generate", "--preset fashion --set classes=@tmp/no.parquet", 2, ("no.parquet",)),
    "zero classes": Case(
        "generate", "--preset fashion --set classes=@tmp/e.parquet", 2, ("no classes",), write("e.parquet", EMPTY_TABLE)
    ),
    "class table is no parquet": Case(
        "build_prompts", "--preset fashion --set classes=@tmp/e.parquet", 2, ("e.parquet",), write("e.parquet", "hello")
    ),
    "no classes given": Case("build_classes", "--name x", 2, ("--class",)),
    "missing synset": Case("build_classes", "--name x --class shoe.n.77", 2, ("shoe.n.77",)),
    "ambiguous word": Case("build_classes", "--name x --class bag", 2, ("bag.n.01", "bag.n.04")),
    "class table outside": Case("build_classes", "--name ../x --class bag.n.04", 2, ("'../x'",)),
    "unknown variable": Case("build_prompts", "--preset fashion --set recipe.template={{x}}", 2, ("'x'", "h_c")),
    "jinja syntax": Case("build_prompts", "--preset fashion --set recipe.template={{c", 2, ("recipe.template",)),
    "template is a path": Case("demo", "--set recipe.template=../../x", 2, ("recipe.template", "'../../x'")),
    "template escapes": Case(
        "generate", "--preset fashion --set recipe.template={{c.__class__.__mro__}}", 2, ("recipe.template",)
    ),
    # the model
    "wrong model path": Case("demo", "--set recipe.model.id=@tmp/none", 2, ("recipe.model.id", "none")),
    "model without index": Case("generate", "--preset fashion --set recipe.model.id=@tmp", 2, ("model_index.json",)),
    "pickled weights": Case(
        "generate", "--preset fashion --set recipe.model.id=@tmp/pickled", 2, ("safetensors",), pickled_model
    ),
    "unpinned hub id": Case(
        "generate", "--preset fashion --set recipe.model.id=org/name", 2, ("recipe.model.revision", "40 hex")
    ),
    "branch of a hub id": Case(
        "demo",
        "--set recipe.model.id=org/name --set recipe.model.revision=main",
        2,
        ("recipe.model.revision", "'main'"),
    ),
    "safety model without weights": Case(
        "generate",
        "--preset fashion --set recipe.safety_model.id=@tmp",
        2,
        ("recipe.safety_model.id", "preprocessor_config.json"),
    ),
    "unpinned safety model": Case(
        "build_prompts",
        "--preset fashion --set recipe.safety_model.id=org/checker",
        2,
        ("recipe.safety_model.revision", "40 hex"),
    ),
    "misspelt key of the safety model": Case(
        "generate", "--preset fashion --set recipe.safety_model.idd=x", 2, ("did you mean 'id'",)
    ),
    # the storage root
    "root is a file": Case("demo", "--root @tmp/file", 2, ("file", "not a folder"), write("file", "")),
    "root under a device": Case("train", "--preset fashion --root /dev/null/x", 2, ("/dev/null", "not a folder")),
    "unknown scheme": Case("generate", "--preset fashion --root foo://x/y", 2, ("foo://x/y", "s3://")),
    "nothing can be written": Case(
        "build_prompts", "--preset fashion --root /proc/synthclones @tiny", 1, ("cannot write /proc/synthclones",)
    ),
    # what must be there
    "train before generate": Case("train", "--preset fashion @tiny", 2, ("jobs.generate",)),
    "evaluate before train": Case("evaluate", "--preset fashion @tiny", 2, ("jobs.train",)),
    "gallery before generate": Case("gallery", "--preset fashion @tiny", 2, ("jobs.generate",)),
    "gallery of too many": Case(
        "gallery", "--preset fashion @tiny --num-images-per-class 5001", 2, ("--num-images-per-class 5001", "1 to 5000")
    ),
    "no such model": Case(
        "evaluate", "--preset fashion --model 0123456789abcdef", 2, ("0123456789abcdef", "jobs.train")
    ),
    "no real data": Case(
        "train", "--preset fashion @tiny --set train.data=real --set data_dir=@tmp/none", 2, ("@tmp/none",)
    ),
    "batch above the data": Case(
        "train", "--preset fashion @tiny --set train.data=real --images-per-class 2", 2, ("train.batch_size", "20")
    ),
    "no test folder": Case(
        "evaluate", "--preset fashion --model @model --set evaluate.test_set=@tmp/real", 2, ("@tmp/real", "no folder")
    ),
    "test folder lacks a class": Case(
        "evaluate",
        "--preset fashion --model @model --set evaluate.test_set=@tmp/real",
        2,
        ("@tmp/real", FIRST_WNID),
        lambda tmp: real_folder(tmp, FIRST_WNID),
    ),
    "no test set anywhere": Case(
        "evaluate",
        "--preset fashion --model @model --set evaluate.test_set=imagenet_r --set evaluate.test_sets.mine=@tmp/real",
        2,
        ("evaluate.test_sets.imagenet_r=FOLDER", "https://github.com/hendrycks/imagenet-r", "@tmp/real"),
    ),
    "unknown corruption": Case(
        "evaluate", "--preset fashion --set evaluate.corruptions.names=rain", 2, ("'rain'", "standard", "fog")
    ),
    "corruption severity": Case(
        "evaluate", "--preset fashion --set evaluate.corruptions.severities=[6]", 2, ("1 to 5", "[6]")
    ),
    "resize below the crop": Case(
        "evaluate", "--preset fashion --model @model --set evaluate.resize=24", 2, ("evaluate.resize 24", "32")
    ),
    "test set named like a path": Case(
        "evaluate", "--preset fashion --set evaluate.test_sets={../x:y}", 2, ("evaluate.test_sets",)
    ),
    "unreadable test image": Case(
        "evaluate",
        "--preset fashion --model @model --set evaluate.test_set=@tmp/real",
        2,
        (f"@tmp/real/{FIRST_WNID}/0.png", "replace or remove"),
        real_folder,
    ),
    # transfer
    "unknown transfer set": Case(
        "transfer", "--preset fashion --model @model --dataset digitz", 2, ("'digitz'", "did you mean 'digits'")
    ),
    "no transfer set is there": Case(
        "transfer",
        "--preset fashion --model @model --dataset pets --set transfer.data_dir=@tmp",
        2,
        ("pets: get it from https://", "@tmp", "give --download"),
    ),
    "transfer set without classes": Case("transfer", "--preset fashion --model @model --dataset @tmp", 2, ("@tmp",)),
    "transfer before train": Case("transfer", "--preset fashion @tiny", 2, ("jobs.train",)),
    "misspelt key of transfer": Case("transfer", "--preset fashion --set transfer.trials=3", 2, ("'num_trials'",)),
    "no probe seeds": Case("transfer", "--preset fashion --set transfer.probe_seeds=[]", 2, ("transfer.probe_seeds",)),
    # analysis
    "analyze before train": Case("analyze", "--preset fashion @tiny --twin", 2, ("jobs.train",)),
    "analyze no such model": Case("analyze", "--preset fashion --model ../x", 2, ("'../x'", "16 digits")),
    "analyze without test images": Case(
        "analyze", "--preset fashion --model @model --set evaluate.test_set=@tmp/real", 2, ("@tmp/real", "no folder")
    ),
    "no eps": Case("analyze", "--preset fashion --set analyze.coding_eps_squared=0", 2, ("coding_eps_squared",)),
    # audit
    "audit before generate": Case("audit", "--preset fashion @tiny", 2, ("jobs.generate",)),
    "prompt of clip without a place": Case(
        "audit", "--preset fashion --set audit.clip_prompt=photo", 2, ("audit.clip_prompt",)
    ),
    "clip on a gpu that is not reserved": Case(
        "audit", "--preset fashion --set audit.device=cuda", 2, ("audit", "num_gpus_per_actor")
    ),
    "tracking server down": Case(
        "evaluate",
        "--preset fashion --model @model --set tracking.enabled=true --set tracking.uri=http://127.0.0.1:9",
        2,
        ("http://127.0.0.1:9", "tracking.enabled=false"),
    ),
    "real images in no folder": Case(
        "train",
        "--preset fashion @tiny --set train.data=real --set train.real_data=@tmp/none",
        2,
        ("@tmp/none", "folder"),
    ),
    "real images without the classes": Case(
        "train",
        "--preset fashion @tiny --set train.data=real --set train.real_data=@tmp",
        2,
        ("lacks 10 of 10 classes",),
    ),
    "share of real images": Case("train", "--preset fashion --set train.real_share=1", 2, ("train.real_share",)),
}
NEEDS_NO_GPU = {
    "generate on a missing gpu": Case(
        "generate",
        "--preset fashion @tiny --set generate.device=cuda --set generate.num_gpus_per_actor=1",
        2,
        ("generate.device", "no usable GPU"),
    ),
    "train on a missing gpu": Case(
        "train", "--preset fashion @tiny --set train.data=real --set train.device=cuda", 2, ("train.device", "GPU")
    ),
    "transfer on a missing gpu": Case(
        "transfer", "--preset fashion --model @model --set transfer.device=cuda", 2, ("transfer.device",)
    ),
    "analyze on a missing gpu": Case(
        "analyze", "--preset fashion --model @model --set evaluate.device=cuda", 2, ("evaluate.device",)
    ),
    "evaluate on a missing gpu": Case(
        "evaluate", "--preset fashion --model @model --set evaluate.device=cuda", 2, ("evaluate.device",)
    ),
}


@pytest.mark.parametrize("name", [*CASES, *(pytest.param(name, marks=NO_GPU) for name in NEEDS_NO_GPU)])
def test_bad_input(name: str, place: Place, run) -> None:
    case = {**CASES, **NEEDS_NO_GPU}[name]
    case.prepare(place.tmp)
    before = tree(place.tmp, place.root)
    code, out, err = run(case.module, *arguments(case, place))
    check(code, out, err, case, place)
    assert tree(place.tmp, place.root) == before


@pytest.mark.parametrize("name", ["unknown preset", "wrong model path"])
def test_a_real_process_ends_the_same_way(name: str, place: Place, cli: Cli) -> None:
    case = CASES[name]
    done = cli(f"jobs.{case.module}", *arguments(case, place))
    check(done.code, done.stdout, done.stderr, case, place)
    assert tree(place.tmp) == {}

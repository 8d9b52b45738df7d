import re
import shutil
from pathlib import Path

import mlflow
import pytest

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.encoders import Encoder, pixel_encoder, random_encoder
from pipeline.core.errors import InputError
from pipeline.core.features import features_of
from pipeline.core.linear_probe import probe
from pipeline.core.transfer_table import open_built_in
from pipeline.stages.transfer import transfer
from tests.transfer_layouts import LAYOUTS, picture

TRANSFER = {"num_trials": 2, "probe_seeds": [0, 1], "lbfgs_max_iterations": 60, "torch_threads": 1}


def config(tmp_path: Path, *, tracked: bool = False, **settings) -> RunConfig:
    transfer_settings = {**TRANSFER, "data_dir": str(tmp_path / "data"), **settings}
    return RunConfig.model_validate({"transfer": transfer_settings, "tracking": {"enabled": tracked}})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "runs"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes that any encoder tells apart: dark and bright."""
    for label, name in enumerate(("dark", "bright")):
        for number in range(10):
            picture(tmp_path / "shades" / name / f"{number}.png", 20 + 200 * label + number)
    return tmp_path / "shades"


def test_a_sets_number_is_the_mean_of_its_probes_and_the_others_are_told(store: Store, tmp_path: Path, folder: Path):
    said: list[str] = []
    settings = config(tmp_path, tracked=True)
    manifest = transfer(settings, store, [pixel_encoder(8)], ["digits", "pets", str(folder)], said.append)
    metrics = store.read_json(manifest["metrics"])
    (row,) = metrics["rows"]
    digits = open_built_in("digits", settings.transfer, None)
    parts = [
        features_of(pixel_encoder(8), part, store, batch_size=500, device="cpu", torch_threads=1)
        for part in (digits.trainval, digits.test)
    ]
    top1 = [probe("lbfgs", *parts, 10, settings.transfer, seed).top1 for seed in (0, 1)]
    assert row["sets"]["digits"]["top1_mean"] == pytest.approx(sum(top1) / 2)
    assert row["sets"]["shades"]["top1_mean"] == 1.0  # dark against bright
    assert row["top1_mean"] == pytest.approx((sum(top1) / 2 + 1) / 2)
    assert list(manifest["missing"]) == ["pets"] and "left out pets: get it from https://" in said[0]
    assert len(said) == 1 + 4
    client = mlflow.MlflowClient(f"sqlite:///{store.root}/mlflow.db")
    logged = client.get_run(manifest["mlflow_run_id"]).data.metrics
    assert logged["raw pixels/digits"] == pytest.approx(sum(top1) / 2)
    client.delete_run(manifest["mlflow_run_id"])  # as if a server had never got it
    assert transfer(settings, store, [pixel_encoder(8)], ["digits", "pets", str(folder)], said.append) == manifest
    (again,) = client.search_runs(["1"])
    assert again.data.metrics == logged


def test_a_built_in_set_that_is_not_there_is_left_out_as_others_are(store: Store, tmp_path: Path, folder: Path):
    nowhere = config(tmp_path).model_copy(update={"data_dir": str(tmp_path / "nothing")})
    manifest = transfer(nowhere, store, [pixel_encoder(8)], ["fashion_mnist", str(folder)], lambda _: None)
    assert list(manifest["missing"]) == ["fashion_mnist"]


def test_a_set_with_an_image_that_cannot_be_read_is_left_out_and_the_others_go_on(
    store: Store, tmp_path: Path, folder: Path
):
    shutil.copytree(folder, tmp_path / "torn")
    torn = tmp_path / "torn" / "dark" / "3.png"
    torn.write_bytes(b"no image")
    said: list[str] = []
    names = [str(tmp_path / "torn"), str(folder)]
    manifest = transfer(config(tmp_path), store, [pixel_encoder(8)], names, said.append)
    assert list(manifest["missing"]) == ["torn"] and manifest["groups"] == {"raw pixels": 1.0}
    assert any(re.match(r"transfer: left out torn (trainval|test): image '.*/dark/3\.png' cannot be", s) for s in said)
    assert [about["name"] for about in store.read_json(manifest["metrics"])["sets"]] == ["shades"]
    assert transfer(config(tmp_path), store, [pixel_encoder(8)], names, said.append) == manifest
    picture(torn, 23)
    mended = transfer(config(tmp_path), store, [pixel_encoder(8)], names, said.append)
    assert mended["missing"] == {} and mended["transfer_id"] != manifest["transfer_id"]


def test_where_no_set_can_be_read_the_first_ones_reason_is_told(store: Store, tmp_path: Path, folder: Path):
    (folder / "dark" / "3.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the 1 data sets can be used; shades .*3\.png' cannot be read"):
        transfer(config(tmp_path), store, [pixel_encoder(8)], [str(folder)], lambda _: None)


def test_what_was_done_is_not_done_again(store: Store, tmp_path: Path, folder: Path, monkeypatch):
    first = transfer(config(tmp_path), store, [pixel_encoder(8)], [str(folder)], lambda _: None)

    def never(*_args, **_options) -> None:
        raise AssertionError

    monkeypatch.setattr("pipeline.stages.transfer.probe", never)
    assert transfer(config(tmp_path), store, [pixel_encoder(8)], [str(folder)], never) == first
    monkeypatch.undo()
    said: list[str] = []
    more = transfer(config(tmp_path, probe_seeds=[0, 1, 2]), store, [pixel_encoder(8)], [str(folder)], said.append)
    assert [line.split(" top-1")[0] for line in said] == ["transfer: shades raw pixels pixels seed 2"]
    assert more["transfer_id"] != first["transfer_id"]


def test_a_trained_model_is_beside_its_baseline(store: Store, tmp_path: Path, folder: Path, save_model):
    model = Encoder("m", "real, 3 per class", 0, 32, save_model(store, "real"), "w")
    settings = config(tmp_path, classifier="sgd", sgd_epochs=3, num_trials=1)
    manifest = transfer(settings, store, [model, random_encoder(0, 32)], [str(folder)], lambda _: None)
    assert set(manifest["groups"]) == {"real, 3 per class", "random weights"}
    # The saved model has the initial weights of the same seed, so both must do the same.
    assert len(set(manifest["groups"].values())) == 1


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["pets", "cog_l1"], "none of the 2 data sets can be used; pets: get it from"),
        (["digitz"], "did you mean 'digits'"),
        (["@tmp"], "class sub-folders"),
        (["@shades", "@tmp/other/shades"], "two data sets are called 'shades'"),
    ],
)
def test_wrong_sets_are_refused_and_nothing_is_written(store: Store, tmp_path: Path, folder: Path, names, said: str):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "shades").symlink_to(folder)
    given = [name.replace("@shades", str(folder)).replace("@tmp", str(tmp_path)) for name in names]
    if names == ["@tmp"]:
        given = [str(tmp_path / "other")]
    with pytest.raises(InputError, match=said):
        transfer(config(tmp_path), store, [pixel_encoder(8)], given, lambda _: None)
    assert not Path(store.root).exists()


def test_a_named_set_lies_under_the_data_folder(store: Store, tmp_path: Path, monkeypatch):
    from dataclasses import replace

    from pipeline.core.transfer_table import NAMED

    LAYOUTS["inat2018"](tmp_path / "data")
    monkeypatch.setitem(NAMED, "inat2018", replace(NAMED["inat2018"], sizes=None))
    settings = config(tmp_path, sgd_epochs=1, validation_share=0.5)
    manifest = transfer(settings, store, [pixel_encoder(8)], ["inat2018"], lambda _: None)
    (about,) = store.read_json(manifest["metrics"])["sets"]
    assert (about["group"], about["classifier"], about["trainval_images"]) == ("long tail", "sgd", 3)

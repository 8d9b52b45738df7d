"""Training states that a machine's end cut, and folders of other trainings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from pipeline.core.errors import InputError
from pipeline.core.generator_config import GeneratorConfig
from pipeline.core.generator_state import claim_work_dir, load_state, save_state


def test_a_state_comes_back_with_its_progress(tmp_path: Path) -> None:
    kept, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    save_state(tmp_path / "unet.pt", {"layer": kept}, {"step": 3})
    assert load_state(tmp_path / "unet.pt", {"layer": other}) == {"step": 3}
    torch.testing.assert_close(other.weight, kept.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["unet.pt"]


def test_without_a_file_there_is_no_progress(tmp_path: Path) -> None:
    assert load_state(tmp_path / "unet.pt", {"layer": torch.nn.Linear(2, 2)}) == {}


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_state_is_one_line_that_names_it(tmp_path: Path, part: float) -> None:
    path, layer = tmp_path / "unet.pt", torch.nn.Linear(64, 64)
    save_state(path, {"layer": layer}, {"step": 3})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(InputError, match=r"unet\.pt' cannot be gone on from.*remove it"):
        load_state(path, {"layer": layer})


@pytest.mark.parametrize("content", [b"text", b"\x80\x04.", b"\x80\x04K\x01.", b"\0" * 5000])
def test_another_file_is_no_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vae.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"vae\.pt' cannot be gone on from"):
        load_state(tmp_path / "vae.pt", {"layer": torch.nn.Linear(2, 2)})


@pytest.mark.parametrize("other", [{"layer": torch.nn.Linear(3, 2)}, {"another": torch.nn.Linear(2, 2)}])
def test_a_state_of_other_parts_is_refused(tmp_path: Path, other: dict[str, torch.nn.Module]) -> None:
    save_state(tmp_path / "unet.pt", {"layer": torch.nn.Linear(2, 2)}, {"step": 3})
    with pytest.raises(InputError, match="cannot be gone on from"):
        load_state(tmp_path / "unet.pt", other)


def test_a_folder_belongs_to_one_config(tmp_path: Path) -> None:
    claim_work_dir(tmp_path / "work", GeneratorConfig())
    claim_work_dir(tmp_path / "work", GeneratorConfig(num_threads=1))
    with pytest.raises(InputError, match="another training"):
        claim_work_dir(tmp_path / "work", GeneratorConfig(seed=1))


@pytest.mark.parametrize("content", [b"", b"{\n ", b"\xff"])
def test_a_damaged_claim_says_how_to_mend_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json' is damaged.*remove it"):
        claim_work_dir(tmp_path, GeneratorConfig())


def test_a_claim_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        claim_work_dir(tmp_path, GeneratorConfig())
    assert not (tmp_path / "config.json").exists()

"""Versions as manifests hold them."""

from __future__ import annotations

import torch

from pipeline.core.versions import installed_versions


def test_the_versions_are_those_that_are_imported() -> None:
    assert installed_versions("torch") == {"torch": torch.__version__.partition("+")[0]}

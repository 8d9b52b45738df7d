"""Versions of the libraries that a run used, for manifests, without importing them: that alone takes torch seconds."""

from __future__ import annotations

from importlib.metadata import version


def installed_versions(*packages: str) -> dict[str, str]:
    """Package -> installed version, e.g. `{"torch": "2.10.0"}`. Raises `PackageNotFoundError`."""
    return {package: version(package) for package in packages}

"""The browser that the tests look at pages with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.chromium import Browser, running_chromium


@pytest.fixture(scope="session")
def browser(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium that all of them share."""
    with running_chromium(chromium, tmp_path_factory.mktemp("chromium")) as found:
        yield found

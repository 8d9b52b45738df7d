"""Pages of MLflow's own UI, as it shows them in a browser."""

from __future__ import annotations

import json
from typing import Any

from tests.browser.chromium import Browser

WAIT_S = 90
"""A page's scripts are 5 MB, and a server starts its worker with the first request."""


def see(browser: Browser, url: str, is_there: str, height: int) -> dict[str, Any]:
    """Open a page of MLflow's and wait until it shows what is wanted.

    Args:
        browser: a Chromium.
        url: of the page.
        is_there: JavaScript that is true once the page shows it.
        height: of the window, pixels; it is 1280 wide.

    Returns:
        As `Browser.visit`; `value` holds `text` (of the page), `axes` (labels of parallel coordinates), `plots`.
    """
    script = f"""
(async () => {{
  const sleep = ms => new Promise(done => setTimeout(done, ms));
  const closed = () => document.querySelector('[data-component-id="mlflow.assistant.chat_panel.close"]')?.click();
  for (let tries = 0; tries < {4 * WAIT_S} && !({is_there}); tries++) {{ await sleep(250); closed(); }}
  await sleep(15000);  // a chart draws itself anew when the panel beside it has gone
  return {{
    there: Boolean({is_there}),
    text: document.body.innerText,
    axes: [...document.querySelectorAll('.parcoords text.label')].map(e => e.textContent),
    plots: document.querySelectorAll('.js-plotly-plot').length,
  }};
}})()
"""
    seen = browser.visit(url, 1280, height, "light", script)
    assert seen["value"]["there"], f"{url} does not show {json.dumps(is_there)}: {seen['value']['text'][:2000]}"
    return seen

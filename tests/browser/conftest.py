"""A headless Chromium, when there is one."""

from __future__ import annotations

import os
import shutil

import pytest
from playwright.sync_api import Error, sync_playwright

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser():
    """Chromium, for one module: as long as playwright runs, so does its event loop, and no other can in this thread.

    From ``BARTIZAN_BROWSER``, the PATH, or playwright's own; skips without any unless one is required.
    """
    found = os.environ.get("BARTIZAN_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        except Error as error:
            reason = f"no Chromium could be started ({str(error).splitlines()[0]}); set BARTIZAN_BROWSER to one"
            if os.environ.get("BARTIZAN_REQUIRE_BROWSER") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        yield started
        started.close()

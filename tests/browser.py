"""Chromium for tests that drive a page, and where it is: installed by the system, not by playwright."""

import shutil

import pytest


def launched():
    """(playwright, a headless Chromium). Skips the test where there is none, and names what is missing."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("chromium: not found (Debian: apt install chromium fonts-thai-tlwg)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright: not installed (pip, extra test)")
    started = playwright.sync_playwright().start()
    try:
        return started, started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
    except BaseException:
        started.stop()
        raise

"""A chat page that all tests share, the internet that it sees, and a browser."""

from pathlib import Path

import pytest

from tests.app import image_site
from tests.app.page_in_browser import Visitor, free_port, started, wait_for
from tests.browser import launched
from tests.started import ROOT, environment
from tests.tiny_models import save_tiny

TALKER = "talker"
"""A model with random weights, which says words until it may say no more."""


@pytest.fixture(scope="module")
def site():
    server = image_site.served()
    yield server
    server.shutdown()


@pytest.fixture(scope="module")
def served(tmp_path_factory, site):
    """The address of a page with the model that ships and one that talks long."""
    folder = tmp_path_factory.mktemp("page")
    save_tiny(folder / TALKER, layers=1, depth=2, global_blocks=(1,), max_visual_tokens=16)
    port = free_port()
    with open(folder / "log.txt", "w+", encoding="utf-8") as log:
        base = str(ROOT / "vlm_jax" / "assets" / "tiny_base")
        words = (f"--model={base}", f"--model={folder / TALKER}", "--models_in_memory=2", "--max_new_tokens=1500")
        network = str(Path(__file__).with_name("network"))
        env = environment(PYTHONPATH=network, TEST_SITE_PORT=str(site.server_address[1]))
        process = started(*words, port=port, log=log, env=env)
        try:
            wait_for(log, "ready", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="module")
def browser():
    playwright, chromium = launched()
    yield chromium
    chromium.close()
    playwright.stop()


@pytest.fixture
def visitor(browser, served):
    opened = []

    def open_window(**context) -> Visitor:
        opened.append(Visitor(browser, served, **context))
        return opened[-1]

    yield open_window
    for one in opened:
        one.context.close()

"""A corpus under review, and a browser on its page."""

import pytest

from data_pipeline.review.session import Options
from tests.browser import launched
from tests.review_corpus import make_corpus
from tests.review_server import serving


@pytest.fixture(scope="module")
def browser():
    started, browser = launched()
    yield browser
    browser.close()
    started.stop()


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "corpus")


@pytest.fixture
def served(corpus):
    with serving(corpus, Options(shared=1.0)) as (address, review):
        yield address, review


@pytest.fixture
def visit(browser, served):
    """Opens the page as somebody with a browser of their own; at the end nothing may have gone wrong or been asked of
    another machine."""
    contexts, problems = [], []

    def visit(path="/?reviewer=Ann", **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)  # a busy machine may be late
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.on("request", lambda sent: None if sent.url.startswith(served[0]) else problems.append(sent.url))
        page.problems = problems
        page.goto(served[0] + path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert problems == []

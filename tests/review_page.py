"""What tests of the review page do in a browser: press keys, and wait for what they ask of the server."""

import re

from data_pipeline.review.log import LOG, read_log


def identifier(page):
    return page.locator("#about .id").text_content()


def press(page, *keys):
    """Presses keys, and waits for what the last one asks of the server."""
    for key in keys[:-1]:
        page.keyboard.press(key)
    with page.expect_response(re.compile("/api/")):
        page.keyboard.press(keys[-1])
    page.locator("body:not([aria-busy])").wait_for()


def ready(page):
    page.locator("body:not([aria-busy]) #about .id").wait_for()
    return page


def key_of(served, name):
    return next(item.key for item in served[1].items if item.record.id == name)


def entries(corpus):
    return read_log(corpus / LOG)[0]

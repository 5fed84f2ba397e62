"""How the review page looks in headless Chromium: on a phone, in Thai, in the dark, and to who uses the keyboard."""

import re
from collections import Counter

from tests.review_corpus import THAI_ANSWER
from tests.review_page import identifier, key_of, ready

PHONE = {"width": 390, "height": 844}


def test_a_phone_shows_everything_without_scrolling_sideways(visit, served):
    page = ready(visit(viewport=PHONE, has_touch=True, is_mobile=True))
    width = "document.documentElement.scrollWidth"
    for name in ("talumo-1", "talumo-th", "coffee/1", "markup", "rocket"):
        with page.expect_response(re.compile("/api/item")):
            page.evaluate("key => { location.hash = key }", key_of(served, name))
        assert identifier(ready(page)) == name and page.evaluate(width) == 390
    for button in ("previous", "accept", "reject", "edit", "undo", "next"):
        box = page.locator(f"#{button}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and box["y"] + box["height"] <= 844
        assert box["height"] >= 44 and box["width"] >= 38
    for button, dialog in (("reject", "reject-dialog"), ("edit", "edit-dialog"), ("help-open", "help-dialog")):
        page.locator(f"#{button}").tap()
        box = page.locator(f"#{dialog}").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 390 and page.evaluate(width) == 390
        page.locator(f"#{dialog} [data-close]").tap()
    page.locator("#reject").tap()
    with page.expect_response(re.compile("/api/action")):
        page.locator("#reasons button").first.tap()


def test_thai_is_marked_as_thai_and_breaks_between_its_words(visit, served):
    page = ready(visit(f"/?reviewer=Ann#{key_of(served, 'talumo-th')}", viewport=PHONE))
    for name in ("question", "answer", "reasoning", "fact"):
        assert page.locator(f"#{name}").get_attribute("lang") == "th"
    assert page.locator("#answer").text_content() == THAI_ANSWER
    # The offsets at which lines begin, measured letter by letter.
    begins = page.evaluate(
        """() => {
          const text = document.getElementById("answer").firstChild, range = document.createRange(), found = [];
          let last = null;
          for (let i = 0; i < text.length; i++) {
            range.setStart(text, i); range.setEnd(text, i + 1);
            const box = range.getBoundingClientRect();
            if (last !== null && box.width && box.bottom - last > 10) found.push(i);
            if (box.width) last = box.bottom;
          }
          return found;
        }"""
    )
    words = page.evaluate(
        "text => Array.from(new Intl.Segmenter('th', {granularity: 'word'}).segment(text), (part) => part.index)",
        THAI_ANSWER,
    )
    assert begins and set(begins) <= set(words)
    page.keyboard.press("e")
    assert page.locator("#edit-answer").get_attribute("lang") == "th"


def test_everything_is_reached_by_tab_with_a_visible_focus_and_has_a_name(visit):
    page = ready(visit())
    seen = Counter()
    for _ in range(14):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.id || e.className, s.outlineStyle, parseFloat(s.outlineWidth)] }"
        )
        seen[found[0]] += 1
        assert found[0] == "" or (found[1] != "none" and found[2] >= 2), found
    assert {"accept", "reject", "edit", "undo", "next", "previous", "who", "help-open", "image"} <= set(seen)
    assert (
        page.evaluate(
            "() => [...document.querySelectorAll('button, input, textarea, img, progress')].filter((e) =>"
            " !(e.getAttribute('aria-label') || e.textContent.trim() || e.alt || e.labels?.length || e.id === 'zoom'))"
            ".map((e) => e.outerHTML)"
        )
        == []
    )
    assert page.locator("[role=status]").get_attribute("aria-live") == "polite"


def test_dark_mode_follows_the_system_and_texts_stay_readable(visit):
    luminance = """(element) => {
      const channel = (value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
      const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((one) => channel(one / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      let behind = element;
      while (/, 0\\)|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
      const pair = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
      return [(Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05), pair[1]];
    }"""
    for scheme in ("light", "dark"):
        page = ready(visit(color_scheme=scheme))
        for selector in (
            "#question",
            "#answer",
            "#flags",
            "#accept",
            "#reject",
            "#edit",
            "#next",
            "#count",
            ".id",
            "h2",
        ):
            contrast, behind = page.locator(selector).first.evaluate(luminance)
            assert contrast >= 4.5, (scheme, selector, contrast)
        assert (page.locator("#question").evaluate(luminance)[1] < 0.1) == (scheme == "dark")

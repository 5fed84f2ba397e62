"""The review page in headless Chromium: by keyboard alone, with reloads, lost answers and two reviewers."""

import re

from data_pipeline.review.decisions import read_decisions
from data_pipeline.review.session import Options
from tests.review_corpus import MARKUP
from tests.review_page import entries, identifier, key_of, press, ready
from tests.review_server import serving


def test_a_session_by_keyboard_alone_with_a_reload_in_the_middle(visit, corpus):
    page = visit("/")
    page.locator("#name-dialog[open]").wait_for()
    for _ in range(3):  # it stays, whatever closes other dialogs
        page.keyboard.press("Escape")
        page.wait_for_timeout(100)  # it is opened again a moment later
        page.locator("#name-dialog[open]").wait_for()
    page.keyboard.type("Ann")
    press(page, "Enter")
    ready(page)
    assert page.url.split("?")[1].startswith("reviewer=Ann#")
    first = identifier(page)
    assert first in ("talumo-1", "coffee/1") and page.locator("#flags li").count() >= 1

    press(page, "a")
    second = identifier(page)
    assert page.locator("#status").text_content() == "Accepted." and {first, second} == {"talumo-1", "coffee/1"}
    press(page, "r", "2")
    third = identifier(page)
    page.keyboard.press("r")
    page.keyboard.press("0")
    page.keyboard.type("r: the image is blurred")  # letters that are no keys here
    press(page, "Enter")
    assert [(entry.action, entry.reason, entry.note) for entry in entries(corpus)] == [
        ("accept", "", ""),
        ("reject", "not_in_image", ""),
        ("reject", "other", "r: the image is blurred"),
    ]

    here = identifier(page)
    page.reload()
    ready(page)
    assert identifier(page) == here and page.locator("#count").text_content() == "3 of 10"

    press(page, "u")
    assert identifier(page) == third and page.locator("#count").text_content() == "2 of 10"
    press(page, "ArrowRight")
    assert identifier(page) == here
    press(page, "p")
    press(page, "p")
    assert identifier(page) == second and "You rejected this" in page.locator("#mine").text_content()
    press(page, "a")  # decides anew
    assert identifier(page) == third
    verdicts = {name: one.verdict for name, one in read_decisions(corpus).items()}
    assert verdicts == {first: "accepted", second: "accepted"}


def test_an_edit_by_keyboard_keeps_its_draft_over_a_reload_and_is_shown_afterwards(visit, served, corpus):
    page = ready(visit(f"/?reviewer=Ann#{key_of(served, 'talumo-2')}"))
    assert page.locator("#answer").text_content() == "potters" and "a potter" in page.locator("#also").text_content()
    page.keyboard.press("e")
    assert page.evaluate("document.activeElement.id") == "edit-question"
    page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("skilled potters")
    page.reload()
    ready(page).keyboard.press("e")
    assert page.locator("#edit-answer").input_value() == "skilled potters"
    press(page, "Control+Enter")
    assert read_decisions(corpus)["talumo-2"].texts.answer == "skilled potters"
    press(page, "p")
    assert page.locator("#answer").text_content() == "skilled potters"
    assert "You edited this" in page.locator("#mine").text_content()
    page.keyboard.press("e")
    page.locator("#edit-answer").fill(" ")
    with page.expect_response(re.compile("/api/action")):
        page.keyboard.press("Control+Enter")
    page.locator("#edit-error:not([hidden])").wait_for()
    assert "the answer is empty" in page.locator("#edit-error").text_content()
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0 and len(entries(corpus)) == 1
    page.problems.clear()  # the console tells of the status 400 that was meant


def test_two_reviewers_at_once_see_each_other_after_deciding_only(visit, corpus, served):
    key = key_of(served, "markup")
    ann, ben = ready(visit(f"/?reviewer=Ann#{key}")), ready(visit(f"/?reviewer=Ben#{key}"))
    press(ann, "r", "3")
    ben.reload()
    ready(ben)
    assert ben.locator("#others-box").is_hidden() and identifier(ben) == "markup"
    press(ben, "a")
    press(ben, "p")
    assert "Ann rejected this – The image is faulty" in ben.locator("#others").text_content()
    decision = read_decisions(corpus)["markup"]
    assert decision.verdict == "rejected" and set(decision.by_reviewer) == {"Ann", "Ben"}
    press(ann, "u")
    assert read_decisions(corpus)["markup"].verdict == "accepted"


def test_the_name_is_remembered_and_can_be_changed(visit):
    page = ready(visit("/?reviewer=Ann"))
    page.goto(page.url.split("?")[0])
    ready(page)
    assert page.locator("#who").text_content() == "Ann" and "reviewer=Ann" in page.url
    page.locator("#who").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("Ben")
    press(page, "Enter")
    assert page.locator("#who").text_content() == "Ben" and "reviewer=Ben" in page.url


def test_an_address_with_a_name_that_is_none_asks_for_one(visit):
    page = visit(f"/?reviewer={'y' * 60}")
    page.locator("#name-dialog[open]").wait_for()
    assert "1 to 40 printable characters" in page.locator("#name-error").text_content()
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)  # it is opened again a moment later
    page.locator("#name-dialog[open]").wait_for()
    page.locator("#name").fill("Ann")
    press(page, "Enter")
    ready(page)
    assert page.locator("#who").text_content() == "Ann" and "reviewer=Ann#" in page.url
    assert page.locator("#name-error").is_hidden() and page.locator("dialog[open]").count() == 0
    page.problems.clear()  # the console tells of the status 400 that was meant


def test_what_a_model_wrote_is_shown_as_text_and_never_run(visit, served):
    page = ready(visit(f"/?reviewer=Ann#{key_of(served, 'markup')}"))
    assert page.locator("#answer").text_content() == MARKUP and page.locator("#answer *").count() == 0
    page.wait_for_timeout(100)
    assert page.title() == "Review corpus"
    # The browser itself would refuse markup made of a text.
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return false } catch { return true } }"
    )
    assert refused
    page.problems.clear()  # its report of just that


def test_keys_work_on_a_thai_keyboard_and_can_be_switched_off(visit, corpus):
    page = ready(visit())
    thai = {"key": "ฟ", "code": "KeyA", "bubbles": True}
    with page.expect_response(re.compile("/api/action")):
        page.locator("body").dispatch_event("keydown", thai)
    page.locator("body:not([aria-busy])").wait_for()
    assert [entry.action for entry in entries(corpus)] == ["accept"]
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()
    page.keyboard.press("a")  # not under the help
    page.locator("#keys-on").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    page.keyboard.press("Control+a")
    page.reload()
    ready(page).keyboard.press("a")
    page.wait_for_timeout(100)
    assert len(entries(corpus)) == 1
    page.keyboard.press("?")
    assert page.locator("#help-dialog").is_visible()


def test_an_image_that_is_missing_is_told_and_the_record_can_be_rejected(visit, served, corpus):
    (corpus / "images" / "rocket.jpg").unlink()
    page = ready(visit(f"/?reviewer=Ann#{key_of(served, 'rocket')}"))
    page.locator("#images .wrong").wait_for()
    assert "images/rocket.jpg: no such image" in page.locator("#images").text_content()
    press(page, "r", "3")
    assert read_decisions(corpus)["rocket"].verdict == "rejected"
    page.problems.clear()  # the console tells of the missing file


def test_at_the_end_the_page_says_so_and_undo_leads_back(visit, corpus):
    page = ready(visit())
    for _ in range(10):
        press(page, "a")
    assert page.locator("#done").is_visible() and page.locator("#accept").is_disabled()
    assert "You decided on 10" in page.locator("#done-text").text_content()
    page.keyboard.press("a")
    press(page, "u")
    assert page.locator("#record").is_visible() and page.locator("#count").text_content() == "9 of 10"


def test_without_the_server_nothing_is_lost_and_what_was_not_saved_is_told(browser, corpus):
    with serving(corpus) as (address, review):
        page = browser.new_page()
        page.goto(f"{address}/?reviewer=Ann")
        ready(page)
        shown = identifier(page)
        port = int(address.rpartition(":")[2])
    page.keyboard.press("a")
    page.locator("#error:not([hidden])").wait_for()
    assert "may or may not have been saved" in page.locator("#error").text_content() and identifier(page) == shown
    with serving(corpus, port=port):
        press(page, "a")
        assert page.locator("#error").is_hidden() and [entry.id for entry in entries(corpus)] == [shown]
    page.close()


LOSE = """cut => {
  const send = window.fetch;
  window.fetch = async (address, ...more) => {
    if (!String(address).includes("/api/action")) return send(address, ...more);
    window.fetch = send;
    const answer = await send(address, ...more);
    if (!cut) throw new TypeError("Failed to fetch");
    return new Response('{"item": ', { status: answer.status, headers: { "Content-Type": "application/json" } });
  };
}"""


def lose_one_answer(page, cut=False):
    """The next action is done by the server, and the page is not told, or not all."""
    page.evaluate(LOSE, cut)


def lost(page, *keys, cut=False):
    lose_one_answer(page, cut)
    for key in keys:
        page.keyboard.press(key)
    page.locator("#error:not([hidden])").wait_for()
    page.locator("body:not([aria-busy])").wait_for()
    assert "may or may not have been saved" in page.locator("#error").text_content()


def test_another_decision_after_an_answer_that_was_lost_is_written_down_as_what_it_is(visit, corpus):
    page = ready(visit())
    first = identifier(page)
    lost(page, "a")
    press(page, "r", "1")
    assert page.locator("#status").text_content() == "Rejected." and page.locator("#error").is_hidden()
    assert [(entry.action, entry.id) for entry in entries(corpus)] == [("accept", first), ("reject", first)]
    second = identifier(page)
    lost(page, "a", cut=True)
    press(page, "a")  # the same again
    assert [entry.id for entry in entries(corpus)] == [first, first, second] and identifier(page) != second
    third = identifier(page)
    lost(page, "a")
    press(page, "u")  # shows what was saved, before anything is undone
    assert page.locator("#status").text_content().startswith("This is what was saved") and identifier(page) == third
    assert "You accepted this" in page.locator("#mine").text_content() and len(entries(corpus)) == 4
    press(page, "u")
    assert [(entry.action, entry.id) for entry in entries(corpus)[4:]] == [("undo", third)]


def test_accepting_an_edit_on_the_screen_keeps_it_and_the_words_of_before_take_it_back(visit, served, corpus):
    page = ready(visit(f"/?reviewer=Ann#{key_of(served, 'rocket')}"))
    page.keyboard.press("e")
    page.locator("#edit-answer").fill("Falcon Heavy")
    press(page, "Control+Enter")
    press(page, "p")
    press(page, "a")
    assert page.locator("#status").text_content() == "Accepted as you edited it."
    assert read_decisions(corpus)["rocket"].texts.answer == "Falcon Heavy"
    press(page, "p")
    page.keyboard.press("e")
    page.locator("#edit-answer").fill("Falcon 9")
    press(page, "Control+Enter")
    assert read_decisions(corpus)["rocket"].verdict == "accepted"


def test_at_the_end_the_page_tells_of_what_is_in_front_of_others(browser, corpus):
    with serving(corpus, Options(shared=0.0)) as (address, review):
        review.items = review.items[:2]
        review.step("Ann", "", "undecided")
        page = browser.new_page()
        page.goto(f"{address}/?reviewer=Ben")
        press(ready(page), "a")
        assert page.locator("#done-title").text_content() == "Nothing is left for you just now"
        assert "1 more is in front of other reviewers" in page.locator("#done-text").text_content()
        assert "free in 10 min" in page.locator("#done-text").text_content()
        page.close()


def test_a_blind_page_shows_no_doubts(browser, corpus):
    with serving(corpus, Options(shared=1.0, blind=True)) as (address, review):
        page = browser.new_page()
        page.goto(f"{address}/?reviewer=Ann#{key_of((address, review), 'talumo-1')}")
        ready(page)
        assert page.locator("#blind").is_visible() and page.locator("#flags-box").is_hidden()
        assert "samples" not in page.locator("body").text_content()
        page.close()

"""The chat page in a browser: what a person does there, and what the page looks like meanwhile."""

import json
import subprocess
import sys
import urllib.request
import zipfile

import pytest

from tests.app.conftest import TALKER
from tests.app.page_in_browser import free_port, started
from tests.started import ROOT, environment

PHOTOS = ROOT / "data_pipeline" / "corpus" / "drawn" / "photographs"


def test_pictures_are_asked_about_and_a_follow_up_is_answered_behind_them(visitor):
    one = visitor()
    one.attach(PHOTOS / "chelsea.jpg", PHOTOS / "coffee.jpg")
    one.ask("What is in the first?")
    one.answered(1)
    assert one.message(0).locator("img").count() == 2 and one.text(1)
    assert "visual tokens" in one.message(0).inner_text()
    one.ask("And in the second?")
    one.answered(3)
    assert one.text(2) == "And in the second?" and one.text(3)
    assert one.message(2).locator("img").count() == 0
    assert one.wrong == []


def test_what_is_said_is_shown_as_text_in_any_script(visitor):
    one = visitor()
    words = "นี่คืออะไร <img src=x onerror=alert(1)> **b** ![a](http://127.0.0.1:9/a.png) $x$ :red[q] <script>1</script>"
    one.ask(words)
    one.answered(1)
    assert one.text(0) == words
    assert one.message(0).locator("img, strong, script, .katex").count() == 0
    fonts = one.page.evaluate("getComputedStyle(document.querySelector('[data-testid=stText]')).fontFamily")
    assert "Noto Sans Thai" in fonts and one.wrong == []


def test_a_wrong_file_is_named_and_loses_nothing(visitor, tmp_path):
    one = visitor()
    one.attach(PHOTOS / "coffee.jpg")
    one.ask("What is this?")
    one.answered(1)
    wrong = tmp_path / "www.example.com *x* a--b me@example.com.png"
    wrong.write_text("no image")
    one.attach(wrong)
    one.ask("And this?")
    error = one.page.get_by_text(f"{wrong.name}: not an image")
    error.wait_for()
    one.idle()
    assert error.locator("em, a").count() == 0 and one.page.locator("[data-testid=stChatMessage]").count() == 2
    assert one.page.locator("[data-testid=stChatInput] textarea").input_value() == "And this?"


def test_a_page_that_is_loaded_anew_has_its_conversation_and_another_visitor_has_none(visitor):
    one, other = visitor(), visitor()
    one.attach(PHOTOS / "coffee.jpg")
    one.ask("What is this?")
    one.answered(1)
    said = one.text(1)
    one.page.reload()
    one.answered(1)
    assert one.text(0) == "What is this?" and one.text(1) == said
    other.page.reload()
    other.idle()
    assert other.page.locator("[data-testid=stChatMessage]").count() == 0
    assert one.page.url != other.page.url


def test_two_visitors_at_once_are_both_answered_and_one_who_stops_keeps_what_was_said(visitor):
    one, other = visitor(), visitor()
    for each in (one, other):
        each.page.get_by_label("Model").first.click()
        each.page.get_by_role("option", name=TALKER).click()
        each.idle()
    one.ask("Talk")
    one.message(1).locator("[data-testid=stText]").wait_for()
    other.ask("Talk too")
    other.page.get_by_text("1 question is before yours").wait_for()
    one.stop()
    stopped = one.text(1)
    assert stopped.strip(), "what was said stays"
    other.message(1).locator("[data-testid=stText]").wait_for()
    other.stop()
    other.page.get_by_role("button", name="Clear").click()
    other.page.get_by_text("Ask about pictures").wait_for()
    one.page.reload()
    one.answered(1)
    assert one.text(1).startswith(stopped[:20]) and one.text(1).endswith("…")


def test_before_and_after_stand_side_by_side_and_the_conversation_is_exported_as_records(visitor, tmp_path):
    one = visitor()
    one.toggle("Compare with another model")
    one.page.get_by_text("Sampling").click()
    one.page.get_by_label("Longest answer, tokens").fill("8")
    one.page.get_by_label("Longest answer, tokens").press("Tab")
    one.idle()
    one.attach(PHOTOS / "rocket.jpg")
    one.ask("What is this?")
    one.page.get_by_role("button", name="Copy").nth(1).wait_for()
    one.idle()
    first, second = (box.bounding_box() for box in one.message(1).locator("[data-testid=stText]").all())
    assert first["x"] + 100 < second["x"] and abs(first["y"] - second["y"]) < 5
    assert one.message(1).get_by_text("tiny_base").count() == 1 and one.message(1).get_by_text(TALKER).count() == 1
    with one.page.expect_download() as download:
        one.page.get_by_role("button", name="Export").click()
    download.value.save_as(tmp_path / "conversation.zip")
    with zipfile.ZipFile(tmp_path / "conversation.zip") as archive:
        records = [json.loads(line) for line in archive.read("conversation.jsonl").decode().splitlines()]
        assert archive.read("images/1.jpg") == (PHOTOS / "rocket.jpg").read_bytes()
    assert [record["provenance"]["model"] for record in records] == ["tiny_base", TALKER]
    (answer,) = records[0]["provenance"]["answers"]
    assert answer["finished"] and answer["max_new_tokens"] == 8 and answer["seed"] == 0
    key = one.page.url.partition("c=")[2]
    assert all(key[:6] not in json.dumps(record) for record in records), "the key opens the conversation"


def test_retry_edit_copy_and_clear(visitor):
    one = visitor(permissions=["clipboard-read", "clipboard-write"])
    one.attach(PHOTOS / "coffee.jpg")
    one.ask("What is this?")
    one.answered(1)
    one.page.get_by_role("button", name="Copy").click()
    one.page.get_by_text("Copied").wait_for()
    assert one.page.evaluate("navigator.clipboard.readText()").strip() == one.text(1).strip()
    one.ask("Really?")
    one.answered(3)
    one.page.get_by_role("button", name="Retry").click()
    one.page.get_by_role("button", name="Stop").wait_for()
    one.answered(3)
    one.message(0).get_by_role("button", name="Edit").click()
    one.page.get_by_label("Your question").fill("What colour is it?")
    one.page.get_by_label("Your question").press("Tab")
    one.page.get_by_role("button", name="Ask again").click()
    one.message(0).get_by_text("What colour is it?").first.wait_for()
    one.answered(1)
    one.message(2).wait_for(state="detached")
    assert one.text(0) == "What colour is it?" and one.message(0).locator("img").count() == 1
    one.page.get_by_role("button", name="Clear").click()
    one.page.get_by_text("Ask about pictures").wait_for()
    assert one.page.locator("[data-testid=stChatMessage]").count() == 0 and one.wrong == []


def test_fewer_visual_tokens_are_chosen_and_drawn(visitor):
    one = visitor()
    one.page.get_by_role("button", name="What is in the image?").first.click()
    one.answered(1)
    one.toggle("As the model was trained")
    one.page.get_by_label("Chosen by").first.click()
    one.page.get_by_role("option", name="uniform").click()
    one.idle()
    one.toggle("Show which tokens stay")
    one.page.get_by_text("3 of 12 visual tokens, by uniform").wait_for()
    assert one.page.locator("img[alt='the tokens that stay']").count() == 1


def test_on_a_phone_nothing_is_wider_than_the_screen_and_colours_follow_the_system(visitor):
    one = visitor(viewport={"width": 390, "height": 844}, color_scheme="light", is_mobile=True)
    one.attach(PHOTOS / "chelsea.jpg", PHOTOS / "coffee.jpg", PHOTOS / "rocket.jpg")
    one.ask("What is in the first of these three pictures, and " + "very " * 60 + "long?")
    one.answered(1)
    colour = "getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor"
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert one.page.evaluate(colour) == "rgb(255, 255, 255)"
    one.page.emulate_media(color_scheme="dark")
    one.page.reload()
    one.answered(1)
    assert one.page.evaluate(colour) != "rgb(255, 255, 255)"
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390


def test_images_from_an_address_pasted_and_dropped_go_with_the_next_question_and_a_private_address_is_refused(
    visitor, site
):
    one = visitor()
    one.page.get_by_text("Image from an address").click()
    address = one.page.get_by_label("Address")
    address.fill("http://127.0.0.1/red.png")
    one.page.get_by_role("button", name="Fetch").click()
    one.page.get_by_text("http://127.0.0.1/red.png: leads to an address that is not public").wait_for()
    address.fill("http://images.example.org/red.png?token=1")
    one.page.get_by_role("button", name="Fetch").click()
    one.page.get_by_text("With the next question:").wait_for()
    one.paste(PHOTOS / "coffee.jpg")
    one.drop(PHOTOS / "rocket.jpg")
    one.ask("What colour is it?")
    one.answered(1)
    assert one.message(0).locator("img").count() == 3
    assert ("images.example.org", "/red.png?token=1") in site.asked and one.wrong == []


def test_where_others_reach_the_page_addresses_are_not_fetched(visitor):
    one = visitor(extra_http_headers={"X-Forwarded-For": "203.0.113.9"})
    assert one.page.get_by_text("Sampling").count() == 1
    assert one.page.get_by_text("Image from an address").count() == 0


def test_answers_of_the_server_let_nothing_be_loaded_from_elsewhere(served):
    with urllib.request.urlopen(served) as answer:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert b"https://" not in answer.read()


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["--model=nothing"], 1, "error: nothing: "),
        (["--help"], 0, "usage: streamlit run app/chat.py --"),
    ],
)
def test_what_the_page_cannot_be_started_with_is_one_line(tmp_path, words, status, line):
    with open(tmp_path / "log.txt", "w+", encoding="utf-8") as log:
        assert started(*words, port=free_port(), log=log, env=environment()).wait(120) == status
        log.seek(0)
        printed = log.read()
    assert sum(one.startswith(line) for one in printed.splitlines()) == 1 and "Traceback" not in printed


@pytest.mark.parametrize(
    ("start", "line"),
    [
        ("", "error: the page is served by streamlit: streamlit run app/chat.py"),
        ("sys.modules['streamlit'] = None", "error: streamlit: not installed; the chat page needs pip install"),
    ],
)
def test_started_without_streamlit_it_says_what_is_missing(start, line):
    program = (
        f"import runpy, sys\n{start}\nsys.path.insert(0, 'app')\nrunpy.run_path('app/chat.py', run_name='__main__')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1 and ended.stderr.splitlines()[-1].startswith(line) and "Traceback" not in ended.stderr

"""A conversation of the chat page: turns, pictures, and what is exported of it."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import pytest

from data_pipeline.sources import open_source
from dialogue import MOST_PICTURES, MOST_TURNS, Dialogue, Dialogues, Reply, picture
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError

CAT = (PHOTOS / "chelsea.jpg").read_bytes()


def answered(dialogue, question, pictures=(), **replies):
    dialogue.add(list(pictures))
    turn = dialogue.ask(question)
    for name, text in replies.items():
        turn.replies[name] = Reply(text, finished=True, settings={"seed": turn.attempt})
    return turn


def texts(messages):
    return [m["content"] if isinstance(m["content"], str) else m["content"][-1]["text"] for m in messages]


def test_each_model_is_told_its_own_answers_and_another_ones_where_it_was_not_asked():
    dialogue = Dialogue()
    answered(dialogue, "One?", [picture("cat.jpg", CAT)], before="b1", after="a1")
    answered(dialogue, "Two?", before="b2")
    dialogue.ask("Three?")
    assert texts(dialogue.messages("after", 2)) == ["One?", "a1", "Two?", "b2", "Three?"]
    assert texts(dialogue.messages("before", 2)) == ["One?", "b1", "Two?", "b2", "Three?"]
    assert texts(dialogue.messages("before", 0)) == ["One?"]
    first = dialogue.messages("before", 2)[0]["content"]
    assert first[0] == {"type": "image", "image": CAT}


def test_a_turn_that_nothing_was_said_to_is_no_part_of_what_follows():
    dialogue = Dialogue()
    answered(dialogue, "One?")
    dialogue.turns[0].replies["m"] = Reply(error="too long")
    dialogue.ask("Two?")
    assert texts(dialogue.messages("m", 1)) == ["Two?"]


def test_an_edited_turn_takes_back_what_follows_and_another_try_has_another_seed():
    dialogue = Dialogue()
    answered(dialogue, "One?", [picture("cat.jpg", CAT)], m="1")
    answered(dialogue, "Two?", m="2")
    dialogue.again(1)
    assert (dialogue.turns[1].attempt, dialogue.turns[1].replies) == (1, {})
    dialogue.again(0, "Another?")
    assert [turn.question for turn in dialogue.turns] == ["Another?"]
    assert dialogue.turns[0].attempt == 0 and len(dialogue.turns[0].pictures) == 1
    with pytest.raises(InputError, match="empty"):
        dialogue.again(0, "  ")
    with dialogue.answering:
        for change in (dialogue.clear, lambda: dialogue.ask("More?"), lambda: dialogue.again(0)):
            with pytest.raises(InputError, match="still being answered"):
                change()
    assert [turn.question for turn in dialogue.turns] == ["Another?"]


def test_nothing_asked_and_too_much_of_anything_are_refused():
    dialogue, cat = Dialogue(), picture("cat.jpg", CAT)
    with pytest.raises(InputError, match="a question goes with it"):
        dialogue.ask("\n")
    dialogue.add([cat] * MOST_PICTURES)
    with pytest.raises(InputError, match="more than 8 pictures"):
        dialogue.add([cat])
    for _ in range(MOST_TURNS):
        dialogue.ask("?")
    with pytest.raises(InputError, match="100 turns"):
        dialogue.ask("?")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("notes.txt", b"no image at all", "notes.txt: not an image"),
        ("cut.jpg", CAT[: len(CAT) // 2], "cut.jpg: unreadable"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "a.svg: not an image"),
        ("large.png", bytes((20 << 20) + 1), "large.png: more than 20 MB"),
        ("empty.png", b"", "empty.png: not an image"),
    ],
)
def test_a_file_that_is_no_picture_is_named(name, data, reason):
    with pytest.raises(InputError, match=reason):
        picture(name, data)


def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded():
    buffer = io.BytesIO()
    PIL.Image.new("1", (30_000, 2_000)).save(buffer, "PNG")
    assert len(buffer.getvalue()) < 20_000
    with pytest.raises(InputError, match="bomb.png: more than 40 million pixels"):
        picture("bomb.png", buffer.getvalue())


def test_the_browser_is_shown_an_image_made_here_upright_and_small():
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    PIL.Image.new("RGB", (3000, 1000), (255, 0, 0)).save(buffer, "JPEG", exif=exif)
    found = picture("tall.jpg", buffer.getvalue())
    shown = PIL.Image.open(io.BytesIO(found.preview))
    assert found.size == (1000, 3000) and shown.size == (341, 1024) and shown.format == "JPEG" and not shown.getexif()
    assert found.suffix == "jpg" and bytes(found.data) == buffer.getvalue()


def test_an_exported_conversation_is_read_by_training(tmp_path):
    dialogue, cat = Dialogue(), picture("../../cat <b>.jpg", CAT)
    answered(dialogue, "ชื่ออะไร", [cat, picture("coffee.jpg", (PHOTOS / "coffee.jpg").read_bytes())], a="เชลซี", b="")
    answered(dialogue, "Sure?", [cat], a="Yes", b="No")
    dialogue.turns[1].replies["a"].finished = False
    data = dialogue.exported("chat-1", ["a", "b", "never"])
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["conversation.jsonl", "images/1.jpg", "images/2.jpg"]
        archive.extractall(tmp_path)
    records = list(open_source(tmp_path / "conversation.jsonl"))
    assert [record.id for record in records] == ["chat-1-1", "chat-1-2"]
    assert [message["content"] for message in records[0].messages if message["role"] == "assistant"] == ["เชลซี", "Yes"]
    answers = [{"finished": True, "seed": 0}, {"finished": False, "seed": 0}]
    assert records[0].provenance == {"made_by": "chat", "model": "a", "answers": answers}
    assert len(records[1].messages) == 2, "what was not answered is not in it"
    lines = [json.loads(line) for line in (tmp_path / "conversation.jsonl").read_text("utf-8").splitlines()]
    assert lines[0]["messages"][2]["content"][0]["image"] == "images/1.jpg"
    np.testing.assert_array_equal(np.fromfile(tmp_path / "images" / "1.jpg", np.uint8), np.frombuffer(CAT, np.uint8))


def test_conversations_are_found_by_a_key_that_cannot_be_chosen_and_the_oldest_are_let_go():
    dialogues = Dialogues(most=2)
    first, one = dialogues.of(None)
    assert dialogues.of(first) == (first, one)
    chosen, other = dialogues.of("a-key-of-somebody's-own")
    assert chosen != "a-key-of-somebody's-own" and other is not one and len(chosen) >= 20
    dialogues.of(first)
    dialogues.of(None)
    assert dialogues.of(first)[1] is one, "used last but one"
    assert dialogues.of(chosen)[0] != chosen, "let go"
    one.ask("?")
    for _ in range(3):
        dialogues.of(None)
    assert dialogues.of(first)[1] is one, "those without a turn go first"
    heavy = Dialogues(most_bytes=len(CAT))
    first, one = heavy.of(None)
    one.add([picture("cat.jpg", CAT)])
    heavy.of(None)
    assert heavy.of(first)[0] != first

"""What a visitor of the chat page sees. Streamlit runs this file anew for everything that is clicked or typed.

Whatever a visitor, a file or a model says is drawn as text, never as Markdown or HTML.
"""

import contextlib
import time
from collections.abc import Iterator

import streamlit as st

from copying import copy_button
from dialogue import Dialogue, Reply, Turn, picture
from page_settings import Settings, sidebar
from plain_text import plain
from serving_state import Shared, shared
from vlm_jax.errors import InputError, gathered
from vlm_jax.processing.images import open_image

TYPES = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "pgm"]
LONGEST_QUESTION = 8000
ASKED, ERRORS, QUESTION = "asked", "errors", "question"
"""Keys of what is kept between runs: a turn that is to be answered, lines to be shown once, the input."""


def main() -> None:
    state = shared()
    st.set_page_config(page_title="vlm-jax", page_icon="💬", layout="wide")
    key, dialogue = state.dialogues.of(st.query_params.get("c"))
    if st.query_params.get("c") != key:
        st.query_params["c"] = key  # loaded anew, the page finds the conversation by it
    settings = sidebar(state, key, dialogue, _clear)
    for line in st.session_state.pop(ERRORS, []):
        st.error(plain(line))
    if not dialogue.turns:
        _welcome(state, dialogue)
    slots = [_draw(state, dialogue, number, settings) for number in range(len(dialogue.turns))]
    _draw_pictures_to_come(dialogue)
    st.chat_input(
        "Ask about a picture: drop, paste or attach some",
        key=QUESTION,
        accept_file="multiple",
        file_type=TYPES,
        max_chars=LONGEST_QUESTION,
        submit_mode="stop",
        on_submit=_submitted,
        args=(dialogue,),
    )
    if st.session_state.pop(ASKED, False) and dialogue.turns:
        _answer(state, dialogue, settings, slots[-1])
        st.rerun()
    if dialogue.answering.locked():  # in another window, or in this one before it was loaded anew
        time.sleep(0.5)
        st.rerun()


# What a click does, before the page is drawn anew


def _submitted(dialogue: Dialogue) -> None:
    value, errors = st.session_state[QUESTION], []
    if dialogue.answering.locked():
        st.session_state[ERRORS] = ["the last question is still being answered; stop it, or wait"]
        return
    pictures = []
    for file in value.files:
        with gathered(errors):
            pictures.append(picture(file.name, file.getvalue()))
    with gathered(errors):
        dialogue.add(pictures)
    if not errors:
        with gathered(errors):
            dialogue.ask(value.text or "")
            st.session_state[ASKED] = True
    st.session_state[ERRORS] = errors


def _again(dialogue: Dialogue, number: int, words: str | None = None) -> None:
    """Asks a turn again, in the words of an input where its key is given."""
    try:
        dialogue.again(number, None if words is None else st.session_state[words])
        st.session_state[ASKED] = True
    except InputError as error:
        st.session_state[ERRORS] = error.lines


def _click_example(state: Shared, dialogue: Dialogue, number: int) -> None:
    example = state.examples[number]
    try:
        dialogue.pictures = [example.picture]
        dialogue.ask(example.question)
        st.session_state[ASKED] = True
    except InputError as error:
        st.session_state[ERRORS] = error.lines


def _clear(dialogue: Dialogue) -> None:
    dialogue.clear()


# What is drawn


def _welcome(state: Shared, dialogue: Dialogue) -> None:
    st.header("Ask about pictures")
    st.write("Attach a picture below and ask, or begin with one of these:")
    for column, (number, example) in zip(st.columns(len(state.examples)), enumerate(state.examples), strict=True):
        with column:
            st.image(example.picture.preview, width=160, alt="")
            st.button(
                plain(example.question),
                key=f"example-{number}",
                on_click=_click_example,
                args=(state, dialogue, number),
                wrap=True,
            )


def _draw(state: Shared, dialogue: Dialogue, number: int, settings: Settings) -> list:
    """A turn. Returns where each chosen model's answer is written."""
    turn, last = dialogue.turns[number], number == len(dialogue.turns) - 1
    with st.chat_message("user"):
        _draw_pictures(state, turn, settings)
        st.text(turn.question)
        with st.container(horizontal=True):
            with st.popover("Edit", icon=":material/edit:", type="tertiary"):
                words = f"words-{number}-{turn.attempt}"
                st.text_area("Your question", turn.question, key=words, max_chars=LONGEST_QUESTION)
                st.button("Ask again", key=f"edit-{number}", on_click=_again, args=(dialogue, number, words))
                if not last:
                    st.caption("What follows it is taken back.")
            if last:
                retry = {"icon": ":material/refresh:", "type": "tertiary", "help": "Asks again, with the next seed."}
                st.button("Retry", key="retry", on_click=_again, args=(dialogue, number), **retry)
    with st.chat_message("assistant"):
        slots = []
        for column, name in zip(st.columns(len(settings.names)), settings.names, strict=True):
            with column:
                slots.append(_draw_reply(turn, name, number, alone=len(settings.names) == 1))
    return slots


def _draw_reply(turn: Turn, name: str, number: int, *, alone: bool):
    reply, author = turn.replies.get(name), name
    if reply is None and alone and turn.replies:
        author, reply = next(iter(turn.replies.items()))
    if author != name or not alone:
        st.caption(plain(author))
    slot = st.empty()
    if reply is not None and reply.error:
        slot.error(plain(reply.error))
    elif reply is not None:
        slot.text(reply.text + ("" if reply.finished else " …"))
        if reply.text:
            with st.container(width=90):
                copy_button(reply.text, key=f"copy-{number}-{name}")
    return slot


def _draw_pictures(state: Shared, turn: Turn, settings: Settings) -> None:
    if not turn.pictures:
        return
    held = state.models.held(settings.names[0])
    with st.container(horizontal=True):
        for number, one in enumerate(turn.pictures):
            with st.container(width=260):
                if settings.show_tokens and not st.session_state.get(ASKED):
                    drawing, title = _drawing(state, turn, number, settings)
                    st.image(drawing, width="stretch", alt="the tokens that stay")
                    st.caption(plain(title))
                    continue
                st.image(one.preview, width="stretch", alt="")
                if held is not None:
                    with contextlib.suppress(InputError):
                        st.caption(f"{held.visual_tokens(one.size, settings.budget):,} visual tokens")


def _drawing(state: Shared, turn: Turn, number: int, settings: Settings):
    key = (settings.names[0], settings.budget, number)
    if key not in turn.drawings:
        with state.models.line.turn():
            held = state.models.get(settings.names[0])
            image = open_image(turn.pictures[number].data)
            turn.drawings[key] = held.drawn(image, turn.question, settings.budget)
    return turn.drawings[key]


def _draw_pictures_to_come(dialogue: Dialogue) -> None:
    if dialogue.pictures:
        st.caption("With the next question:")
        with st.container(horizontal=True):
            for one in dialogue.pictures:
                st.image(one.preview, width=120, alt="")


# Answers


def _answer(state: Shared, dialogue: Dialogue, settings: Settings, slots: list) -> None:
    """Has each chosen model answer the last turn, one after the other. Where it is stopped, what was said stays."""
    number = len(dialogue.turns) - 1
    turn, places = dialogue.turns[number], dict(zip(settings.names, slots, strict=True))
    if not dialogue.answering.acquire(blocking=False):
        return
    try:
        for name in state.models.first_held(settings.names):
            reply = turn.replies[name] = Reply()
            try:
                for piece in _pieces(state, dialogue, number, name, settings, places[name]):
                    reply.text += piece
                    places[name].text(reply.text)
                reply.finished = True
            except InputError as error:
                reply.error = "; ".join(error.lines)
    finally:
        dialogue.answering.release()


def _pieces(state: Shared, dialogue: Dialogue, number: int, name: str, settings: Settings, place) -> Iterator[str]:
    def waiting(before: int) -> None:
        place.caption(f"{before} {'question is' if before == 1 else 'questions are'} before yours …")

    place.caption("…")
    with state.models.line.turn(waiting):
        if state.models.held(name) is None:
            place.caption(plain(f"loading {name} …"))
        model = state.models.get(name).chosen(settings.budget)
        sampling = settings.sampling(dialogue.turns[number].attempt)
        yield from model.stream(dialogue.messages(name, number), settings.max_new_tokens, **sampling)


main()

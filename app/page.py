"""What a visitor of the chat page sees. Streamlit runs this file anew for everything that is clicked or typed.

Whatever a visitor, a file or a model says is drawn as text, never as Markdown or HTML.
"""

import contextlib
import time
from collections.abc import Callable, Generator

import streamlit as st

from copying import copy_button
from dialogue import Dialogue, Reply, Turn, picture
from page_settings import Settings, sidebar
from plain_text import draw_errors, plain
from serving_state import Shared, shared
from vlm_jax.errors import InputError, gathered
from vlm_jax.processing.images import open_image

TYPES = ["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm", "pgm"]
LONGEST_QUESTION = 8000
ASKED, ERRORS, QUESTION = "asked", "errors", "question"
"""Keys of what is kept between runs: whether a turn that is to be answered was `TYPED` or `CLICKED`; lines to be shown
once; the input."""
TYPED, CLICKED = "typed", "clicked"


def main() -> None:
    state = shared()
    st.set_page_config(page_title="vlm-jax", page_icon="💬", layout="wide")
    key, dialogue = state.dialogues.of(st.query_params.get("c"))
    if st.query_params.get("c") != key:
        st.query_params["c"] = key  # loaded anew, the page finds the conversation by it
    settings = sidebar(state, key, dialogue, _clear)
    draw_errors(st.session_state.get(ERRORS, []))
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
    if asked := st.session_state.pop(ASKED, None):
        if asked == CLICKED:  # of a question that was typed, the input has a button to stop it
            st.button("Stop", icon=":material/stop_circle:", key="stop")
        if dialogue.turns and len(slots) == len(dialogue.turns):  # else they were changed in another window
            _answer(state, dialogue, settings, slots[-1])
        st.rerun()
    if dialogue.answering.locked():  # in another window, or in this one before it was loaded anew
        time.sleep(0.5)
        st.rerun()
    st.session_state.pop(ERRORS, None)


# What a click does, before the page is drawn anew


def _submitted(dialogue: Dialogue) -> None:
    value, errors = st.session_state[QUESTION], []
    pictures = []
    for file in value.files:
        with gathered(errors):
            pictures.append(picture(file.name, file.getvalue()))
    with gathered(errors):
        dialogue.add(pictures)
    if not errors:
        with gathered(errors):
            dialogue.ask(value.text or "")
            st.session_state[ASKED] = TYPED
    if errors:
        st.session_state[ERRORS] = errors
        st.session_state[QUESTION] = value.text or ""  # to be asked again


def _clicked(change: Callable[[], object]) -> None:
    """Changes the conversation, and has its last turn answered."""
    try:
        change()
        st.session_state[ASKED] = CLICKED
    except InputError as error:
        st.session_state[ERRORS] = error.lines


def _retry(dialogue: Dialogue, number: int) -> None:
    _clicked(lambda: dialogue.again(number))


def _edit(dialogue: Dialogue, number: int, words: str) -> None:
    """Asks a turn again in the words of an input, of which the key is given."""
    _clicked(lambda: dialogue.again(number, st.session_state[words]))


def _click_example(state: Shared, dialogue: Dialogue, number: int) -> None:
    example = state.examples[number]
    if dialogue.turns:  # the second of two quick clicks
        st.session_state[ASKED] = CLICKED
        return
    dialogue.pictures = [example.picture]
    _clicked(lambda: dialogue.ask(example.question))


def _clear(dialogue: Dialogue) -> None:
    try:
        dialogue.clear()
    except InputError as error:
        st.session_state[ERRORS] = error.lines


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
                st.button("Ask again", key=f"edit-{number}", on_click=_edit, args=(dialogue, number, words))
                if not last:
                    st.caption("What follows it is taken back.")
            if last:
                retry = {"icon": ":material/refresh:", "type": "tertiary", "help": "Asks again, with the next seed."}
                st.button("Retry", key="retry", on_click=_retry, args=(dialogue, number), **retry)
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
        with slot.container():
            draw_errors(reply.error.splitlines())
    elif reply is not None and reply.finished and not reply.text.strip():
        slot.caption("The answer has no words.")
    elif reply is not None:
        slot.text(reply.text + ("" if reply.finished else " …"))
        if reply.text:
            with st.container(width=90):
                copy_button(reply.text, key=f"copy-{number}-{name}")
    return slot


def _draw_pictures(state: Shared, turn: Turn, settings: Settings) -> None:
    if not turn.pictures:
        return
    known = state.models.known(settings.names[0])
    with st.container(horizontal=True):
        for number, one in enumerate(turn.pictures):
            with st.container(width=260):
                if settings.show_tokens and not st.session_state.get(ASKED):
                    _draw_tokens(state, turn, number, settings)
                    continue
                st.image(one.preview, width="stretch", alt="")
                if known is not None:
                    with contextlib.suppress(InputError):
                        st.caption(f"{known.visual_tokens(one.size, settings.budget):,} visual tokens")


def _draw_tokens(state: Shared, turn: Turn, number: int, settings: Settings) -> None:
    name, budget = settings.names[0], settings.budget
    if (name, budget, number) not in turn.drawings:
        slot = st.empty()
        try:
            with _models_turn(state, slot):
                drawing = state.models.get(name).drawn(open_image(turn.pictures[number].data), turn.question, budget)
        except InputError as error:
            with slot.container():
                draw_errors(error.lines)
            return
        slot.empty()
        kept = {key: other for key, other in turn.drawings.items() if key[:2] == (name, budget)}
        turn.drawings = {**kept, (name, budget, number): drawing}
    image, title = turn.drawings[name, budget, number]
    st.image(image, width="stretch", alt="the tokens that stay")
    st.caption(plain(title))


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
        for name in state.models.first_in_memory(settings.names):
            sampling = settings.sampling(turn.attempt)
            reply = turn.replies[name] = Reply(settings={**settings.tokens(), **sampling})
            try:
                # Closed at once where it is stopped: the next visitor waits for it.
                with contextlib.closing(_pieces(state, dialogue, number, name, settings, places[name])) as pieces:
                    for piece in pieces:
                        reply.text += piece
                        places[name].text(reply.text)
                reply.finished = True
            except InputError as error:
                reply.error = "\n".join(error.lines)
    finally:
        dialogue.answering.release()


def _pieces(state: Shared, dialogue: Dialogue, number: int, name: str, settings: Settings, place) -> Generator[str]:
    with _models_turn(state, place):
        if not state.models.in_memory(name):
            place.caption(plain(f"loading {name} …"))
        model = state.models.get(name).chosen(settings.budget)
        sampling = settings.sampling(dialogue.turns[number].attempt)
        yield from model.stream(dialogue.messages(name, number), **sampling)


def _models_turn(state: Shared, place) -> contextlib.AbstractContextManager[None]:
    """The visitor's turn with the models. Meanwhile `place` says how many are before."""

    def waiting(before: int) -> None:
        place.caption(f"{before} {'question is' if before == 1 else 'questions are'} before yours …")

    place.caption("…")
    return state.models.line.turn(waiting)


main()

"""What visitors, files and models say, drawn as it is: Streamlit's `text` reads no Markdown; its labels do."""

import re
from collections.abc import Sequence

import streamlit as st

_SIGNS = re.compile(r"([!-/:-@\[-`{-~])")
_MADE_INTO_OTHERS = re.compile(r"(?<=[!-/:-@])(?=[!-/:-@])|(?<=www)(?=\.)|(?=@)", re.IGNORECASE)
"""Where Streamlit makes links (://, www., @) and other signs (--, ->) even of what is escaped."""
_WORD_JOINER = "\u2060"


def plain(text: str) -> str:
    """For labels: no link, picture, formula, colour or other sign comes of it."""
    return _SIGNS.sub(r"\\\1", _MADE_INTO_OTHERS.sub(_WORD_JOINER, " ".join(text.split())))


def draw_errors(lines: Sequence[str]) -> None:
    """Lines that say what is wrong. What they name can be copied from them unchanged."""
    if lines:
        with st.container(border=True):
            st.markdown(":red[:material/error: **That did not work:**]")
            for line in lines:
                st.text(line)

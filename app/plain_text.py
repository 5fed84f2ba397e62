"""Text for those of Streamlit's elements that read Markdown, written so that it is shown as it is."""

import re

_SIGNS = re.compile(r"([!-/:-@\[-`{-~])")


def plain(text: str) -> str:
    """Every sign of Markdown is escaped: no link, picture, formula or colour comes of what somebody wrote."""
    return _SIGNS.sub(r"\\\1", " ".join(text.split()))

"""Where a word stands in a text as a word, in any language.

Python's \\b takes the vowel signs of Indic scripts for edges of a word. Scripts that put no space between words have no
edges to be seen, but Thai and Lao syllables cannot be cut anywhere.
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache

_SPACELESS = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x9FFF),
    (0x20000, 0x3FFFF),
)
_WRITTEN_FIRST = "เแโใไເແໂໃໄ"  # vowels that stand before the consonant they are spoken after
_WRITTEN_LAST = "ะาำๅๆຯະາຳๆ"  # and letters that end the syllable before them


def stands_in(text: str, word: str) -> bool:
    """Whether a word, or several, stand in a text with edges around them. Case counts."""
    return next(places(text, word), None) is not None


def places(text: str, word: str) -> Iterator[int]:
    """Where a word begins in a text, with edges around it: not inside a word, a number or a syllable."""
    at = text.find(word) if word else -1
    while at >= 0:
        if _edge(text, at) and _edge(text, at + len(word)):
            yield at
        at = text.find(word, at + 1)


def _edge(text: str, at: int) -> bool:
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    kind_before, kind_after = _kind(before), _kind(after)
    if kind_after == "mark":
        return False
    if "thai" in (kind_before, kind_after):
        return before not in _WRITTEN_FIRST and after not in _WRITTEN_LAST
    if "spaceless" in (kind_before, kind_after):
        return True
    if kind_before == "digit" and after in ".," and text[at + 1 : at + 2].isdigit():
        return False  # 5 is not in 5.5
    if kind_after == "digit" and before in ".," and text[at - 2 : at - 1].isdigit():
        return False
    word = ("letter", "digit", "mark")
    return kind_before not in word or kind_after not in word


@lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    code, category = ord(character), unicodedata.category(character)
    if category[0] == "M":
        # A sign above or below belongs to what stands before it; so does the viramas' and vowels' of Indic scripts.
        return "mark"
    if category == "Nd":
        return "digit"
    if category[0] not in "LN":
        return "other"
    if 0x0E00 <= code <= 0x0EFF:
        return "thai"
    return "spaceless" if any(low <= code <= high for low, high in _SPACELESS) else "letter"

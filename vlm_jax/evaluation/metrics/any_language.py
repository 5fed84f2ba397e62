"""Answers in any language: equal characters, equal words, or the answer within the prediction.

Combining marks stay: in Thai and Indic scripts they are vowels and tones, not ornaments.
"""

import functools
import re
import unicodedata
from collections.abc import Iterator

_SPACE = re.compile(r"\s+")
# Scripts that write words without spaces between them: Thai, Lao, Burmese, Khmer, kana, Han.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_LETTER = re.compile(rf"[^\W{_SPACELESS}]")
_JOINERS = "\u200c\u200d"  # change a word, in Persian and Indic scripts; other invisible characters do not
# Thai as it is typed, and as it should be: e + e for ae; nikhahit and aa, tone before or after, for am.
_THAI = (
    (re.compile("\u0e40\u0e40"), "\u0e41"),
    (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),
    (re.compile("([\u0e48-\u0e4b])\u0e4d\u0e32"), "\\1\u0e33"),
)


@functools.lru_cache(maxsize=1 << 16)  # a report looks at an answer once for each group that it is in
def normalise(text: str) -> str:
    """One form for spellings that mean the same in any language.

    NFC, case folded, runs of white space as one space, invisible characters and punctuation around the answer dropped,
    Thai vowels that can be typed in two ways in one of them. Combining marks stay, wherever they stand: in Thai and
    Indic scripts they are vowels and tones, not ornaments. A sign or a point before a digit, and % behind one, stay.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    text = unicodedata.normalize("NFC", folded)  # folding may undo the first NFC
    text = "".join(c for c in text if c in _JOINERS or unicodedata.category(c) != "Cf")
    for typed, meant in _THAI:
        text = typed.sub(meant, text)
    text = _SPACE.sub(" ", text).strip()
    start, end = 0, len(text)
    while start < end and _surrounds(text[start]) and not (text[start] in "-." and text[start + 1 : end][:1].isdigit()):
        start += 1
    while (
        end > start
        and _surrounds(text[end - 1])
        and not (text[end - 1] == "%" and text[start : end - 1][-1:].isdigit())
    ):
        end -= 1
    return text[start:end]


def _surrounds(character: str) -> bool:
    return unicodedata.category(character)[0] in "PZ"


def exact(prediction: str, answer: str) -> float:
    """Equal, character for character, in NFC and without white space around."""
    plain = lambda text: unicodedata.normalize("NFC", text).strip()  # noqa: E731
    return float(plain(prediction) == plain(answer))


def normalised(prediction: str, answer: str) -> float:
    """Equal in the form of `normalise`; punctuation alone, which normalises to nothing, must be the same."""
    return float(normalise(prediction) == normalise(answer)) if normalise(answer) else exact(prediction, answer)


def contains(prediction: str, answer: str) -> float:
    """The answer stands in the prediction as whole words, both in the form of `normalise`.

    An answer that normalises to nothing is in nothing. Scripts that write words without spaces match anywhere.
    """
    return float(next(places(normalise(answer), normalise(prediction)), None) is not None)


def places(words: str, text: str) -> Iterator[int]:
    """Where words stand in a text and no letter continues them; both in the form of `normalise`."""
    if not words:
        return
    begins, ends = _LETTER.match(words[0]), _LETTER.match(words[-1])
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if not (begins and at and _LETTER.match(text, at - 1)) and not (ends and _LETTER.match(text, end)):
            yield at
        at = text.find(words, at + 1)

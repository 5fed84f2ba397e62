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
_OF_SPACELESS = re.compile(f"[{_SPACELESS}]")
_JOINERS = "\u200c\u200d"  # change a word, in Persian and Indic scripts; other invisible characters do not
# Thai as it is typed, and as it should be, in the order of `pythainlp.util.normalize`: e + e for ae; a tone or silencer
# before the vowel above; nikhahit and aa for am; a tone behind the vowel that follows it; lakkhangyao for aa; marks and
# vowels typed twice, of which a screen shows one.
_THAI = (
    (re.compile("\u0e40\u0e40"), "\u0e41"),
    (re.compile("([\u0e48-\u0e4c]+)([\u0e31\u0e34-\u0e39\u0e47\u0e4d]+)"), "\\2\\1"),
    (re.compile("\u0e4d([\u0e48-\u0e4b]*)\u0e32"), "\\1\u0e33"),
    (re.compile("([\u0e30\u0e32\u0e33\u0e45]+)([\u0e48-\u0e4b]+)"), "\\2\\1"),
    (re.compile("(?<=[^\u0e24\u0e26])\u0e45"), "\u0e32"),
    (re.compile("([\u0e30-\u0e3a\u0e40-\u0e45\u0e47\u0e4c-\u0e4e])\\1+"), "\\1"),
    (re.compile("[\u0e48-\u0e4b]+([\u0e48-\u0e4b])"), "\\1"),
)


@functools.lru_cache(maxsize=1 << 16)  # a report looks at an answer once for each group that it is in
def normalise(text: str) -> str:
    """One form for spellings that mean the same in any language.

    NFC, case folded, runs of white space as one space, invisible characters and punctuation around the answer dropped,
    Thai that can be typed in several ways in one of them. Combining marks stay, wherever they stand: in Thai and
    Indic scripts they are vowels and tones, not ornaments. A sign or a point before a digit, and % behind one, stay.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    text = unicodedata.normalize("NFC", folded)  # folding may undo the first NFC
    text = "".join(c for c in text if c in _JOINERS or unicodedata.category(c) != "Cf")
    for typed, meant in _THAI:
        text = typed.sub(meant, text)
    text = _SPACE.sub(" ", text).strip()
    start, end = 0, len(text)
    while (
        start < end and _surrounds(text[start]) and not (text[start] in "-." and text[start + 1 : start + 2].isdigit())
    ):
        start += 1
    while (
        end > start
        and _surrounds(text[end - 1])
        and not (text[end - 1] == "%" and text[max(start, end - 2) : end - 1].isdigit())
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

    An answer that normalises to nothing is in nothing. Scripts that write words without spaces match anywhere, but a
    mark behind the answer makes its last letter another one: ปู (crab) is not in ปู่ (grandfather).
    """
    return float(next(places(normalise(answer), normalise(prediction)), None) is not None)


def places(words: str, text: str) -> Iterator[int]:
    """Where words stand in a text and no letter or mark continues them; both in the form of `normalise`."""
    if not words:
        return
    begins, ends = _continues(words[0]), _continues(words[-1])
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        before, after = text[at - 1 : at] if at else "", text[end : end + 1]
        if not (begins and _continues(before) or ends and _continues(after) or _is_mark(after)):
            yield at
        at = text.find(words, at + 1)


def _continues(character: str) -> bool:
    """Whether it is of a word that spaces set apart; "" is not."""
    return bool(_LETTER.match(character)) or (_is_mark(character) and not _OF_SPACELESS.match(character))


def _is_mark(character: str) -> bool:
    """Whether it combines with the letter before it, as vowels and tones of Thai and Indic scripts do."""
    return bool(character) and unicodedata.category(character)[0] == "M"

"""One form for questions that ask the same in the same words, which near-duplicates are looked for in.

`normalise`, and numbers: digits of every script in one, thousands without a comma, Buddhist years as those of
the common era (NFKC maps neither).
"""

import re

from vlm_jax.evaluation.metrics.any_language import normalise

BUDDHIST = 543
"""Years by which the Buddhist era is ahead of the common one in Thailand."""
_DIGITS = re.compile(r"\d+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_MARKED_BUDDHIST = re.compile(
    r"(?:พุทธศักราช|พ\.\s?ศ\.?|(?<![^\W\d_])b\.\s?e\.?|(?<![^\W_])be(?=\s?2[3-6]\d\d))\s*(\d{4})(?!\d)"
    r"|(?<!\d)(2[3-6]\d\d)\s?(?:b\.\s?e\.?|be(?![^\W_]))"
)
_MARKED_COMMON = re.compile(
    r"(?:คริสต์ศักราช|ค\.\s?ศ\.?|(?<![^\W\d_])a\.\s?d\.?|(?<![^\W_])ad(?=\s?\d{3}))\s*(\d{3,4})(?!\d)"
    r"|(?<!\d)(\d{3,4})\s?(?:c\.\s?e\.?(?![^\W_])|a\.\s?d\.?(?![^\W_])|ce(?![^\W_])|ad(?![^\W_]))"
)
_YEAR_IN_THAI = re.compile(r"(?<=ปี)\s?(2[3-6]\d\d)(?!\d)")
_INTEGER = re.compile(r"\d+")


def canonical(text: str) -> str:
    """A question in its one form. A year that is marked (พ.ศ. 2560, 2560 BE, ค.ศ. 2017) stands there as 2017.

    A number without a mark is taken for a Buddhist year only behind ปี (year) and between 2300 and 2699.
    """
    text = normalise(text)
    if not _DIGITS.search(text):
        return text
    text = _DIGITS.sub(_ascii_digits, text)
    text = _THOUSANDS.sub("", text)
    text = _MARKED_BUDDHIST.sub(lambda match: str(int(match[1] or match[2]) - BUDDHIST), text)
    text = _MARKED_COMMON.sub(lambda match: match[1] or match[2], text)
    return _YEAR_IN_THAI.sub(lambda match: " " + str(int(match[1]) - BUDDHIST), text)


def integers(text: str) -> tuple[int, ...]:
    """The integers of a canonical text, ascending, each as often as it stands there."""
    return tuple(sorted(int(number) for number in _INTEGER.findall(text)))


def _ascii_digits(match: re.Match) -> str:
    # int() reads the digits of every script, and would drop leading zeros; digit by digit they stay.
    return "".join(str(int(digit)) for digit in match.group())

"""Text that came from a file or a model, as it may stand on a terminal.

Names of files and tensors, records, templates and answers are anybody's. A terminal obeys what is in them: escape
sequences move the cursor, rename the window or answer as if typed; marks of direction turn a name round. So characters
that are not shown are written as Python would write them.
"""

import sys
import unicodedata

LONGEST = 2000
"""Letters of a line that are shown; a name may be a megabyte."""
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_KEPT = "\n\t"


def safe(text: str) -> str:
    """The text with control characters, marks of direction and halves of surrogate pairs written out.

    Line breaks and tabs stay; so does the joiner that emoji and Indic scripts are written with.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_written(letter) for letter in text)


def say(text: str) -> None:
    """A line for the person at the keyboard, on standard error: what a program answers with goes elsewhere."""
    print(safe(text), file=sys.stderr, flush=True)


def line(text: str, most: int = LONGEST) -> str:
    """One line of it: runs of blanks are one, and what is beyond `most` letters is counted instead."""
    whole = " ".join(str(text).split())
    if len(whole) > most:
        whole = f"{whole[: most // 2]} … ({len(whole) - most:,} letters) … {whole[-(most - most // 2) :]}"
    return safe(whole)


def _written(letter: str) -> str:
    if letter in _KEPT or (letter not in _DIRECTIONS and unicodedata.category(letter) not in ("Cc", "Cs")):
        return letter
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

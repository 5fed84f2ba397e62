"""Where Thai words begin and end, by pythainlp's dictionary (extra corpus), loaded when it is first asked.

Thai puts no spaces between words, and syllables alone do not tell นา (field) from นายก (chairman).
"""

import os
from functools import lru_cache
from typing import Any

from vlm_jax.errors import InputError

_AROUND = 40  # characters on both sides of a place that its words are told from


def cuts_a_word(text: str, start: int, end: int) -> bool:
    """Whether a piece of a text begins or ends inside a word of the dictionary.

    Names that the dictionary does not know fall into short pieces, so that nothing is said against them.

    Raises:
      InputError: pythainlp is not installed.
    """
    tokenizer, words = _dictionary()
    first = max(0, start - _AROUND)
    begin = first
    for token in tokenizer.word_tokenize(text[first : end + _AROUND]):
        after = begin + len(token)
        if token in words and (begin < start < after or begin < end < after):
            # The first and last token of what was looked at may be halves themselves.
            return True
        begin = after
    return False


@lru_cache(maxsize=1)
def _dictionary() -> tuple[Any, frozenset[str]]:
    # Otherwise it makes a folder for downloads in the user's home as soon as it is imported.
    os.environ.setdefault("PYTHAINLP_READ_ONLY", "1")
    try:
        from pythainlp.corpus import thai_words
        from pythainlp.tokenize import Tokenizer
    except ModuleNotFoundError as error:
        raise InputError(
            "Thai words are told by pythainlp, which is not installed: pip install 'vlm-jax[corpus]', or set "
            "filters.answer_in_article.thai_words=False to compare syllables only"
        ) from error
    return Tokenizer(engine="newmm"), thai_words()

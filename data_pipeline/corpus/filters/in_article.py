"""Whether the answer stands word for word in the article: the CAP filter of SK-VQA."""

import re
from functools import lru_cache

from data_pipeline.corpus.filters import thai_tokens
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.word_edges import places
from data_pipeline.values import quoted
from vlm_jax.evaluation.metrics.any_language import normalise

_THAI = re.compile("[\u0e00-\u0e7f]")


def answer_in_article(pair: Pair, *, thai_words: bool) -> str:
    """Why an answer is not grounded: its article does not hold it as whole words, in the form of `normalise`.

    Pairs without an article pass. A plural, a synonym or a number in words is not the answer, as published.

    Args:
      thai_words: Thai words are told by a dictionary (pythainlp, extra corpus). Without, นา also stands in นายก: only
        that no syllable is cut is made sure of.

    Raises:
      InputError: `thai_words` without pythainlp.
    """
    if not pair.context:
        return ""
    article, answer = _normalised(pair.context), normalise(pair.answer)
    found = places(article, answer)
    if thai_words and _THAI.search(answer):
        found = (at for at in found if not thai_tokens.cuts_a_word(article, at, at + len(answer)))
    return "" if next(iter(found), None) is not None else f"not in the article: {quoted(pair.answer)}"


@lru_cache(maxsize=4096)  # several questions share an article
def _normalised(article: str) -> str:
    return normalise(article)

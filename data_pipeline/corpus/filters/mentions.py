"""Whether an article speaks of an image: the IR filter of SK-VQA, in English, Thai and any language by a word list.

The published rule is a list of words (picture, photo, image, painting) and says nothing of meaning. So does this one:
"the image of a nation" and "to picture a life" are mentions, and the article is dropped. What is derived from the words
and means something else is none: picturesque, photographer, photosynthesis, imagination, painter. In Thai the rule is
`thai_image_words`'.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from data_pipeline.corpus.filters import thai_image_words
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.word_edges import stands_in
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.any_language import normalise

# Photo- before these is the Greek for light.
_LIGHT = (
    "active|catalytic|chemical|conductive|degradable|diode|dynamic|electric|emission|ionisation|ionization|oxidation"
)
_LIGHT += "|period|reactive|receptor|resist|sensitive|sensor|stable|synthesis|synthetic|therapy|voltaic"
_ENGLISH = re.compile(
    r"(?<![^\W_])(?:pictur(?:e|es|ed|ing)|photos?(?!-(?:" + _LIGHT + r"))|photograph(?:s|ed|ing)?|"
    r"imag(?:e|es|ed|ing)|paintings?)(?![^\W_])",
    re.IGNORECASE,
)


def image_mention(pair: Pair, *, words: Mapping[str, Sequence[str]]) -> str:
    """Why an article is no text of its own: the first words in it that mean an image.

    Args:
      words: of other languages, whole words as they are written, each form by itself: {"de": ["Bild", "Bilder"]}. Under
        "en" and "th", words beside those that are known.

    Raises:
      InputError: an article in a language without words.
    """
    found = (
        mentioned(pair.context, pair.base_language, tuple(words.get(pair.base_language, ()))) if pair.context else []
    )
    return f"mentions an image: {', '.join(found[:3])}" if found else ""


@lru_cache(maxsize=4096)  # several questions share an article
def mentioned(article: str, language: str, words: Sequence[str] = ()) -> list[str]:
    """The words of an article that mean an image, each once, in the order in which they first stand there.

    English and Thai words are looked for in every article, others in those of their language.
    """
    if language not in ("en", "th") and not words:
        raise InputError(
            f"image_mention: no words that mean an image are known in {language!r}; "
            f"add them: words={{'{language}': ['…', '…']}}, or switch the filter off"
        )
    found = [match.group().casefold() for match in _ENGLISH.finditer(article)] + thai_image_words.found(article)
    if words:
        text = normalise(article)
        found += [word for word in words if stands_in(text, normalise(word))]
    return list(dict.fromkeys(found))

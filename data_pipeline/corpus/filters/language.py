"""Whether a pair is written in the language that it says: by scripts, and among languages in Latin letters by words.

Certain between languages of different scripts, such as English and Thai. Between two of one script only where their
commonest words say so: a short question without one of them passes.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from data_pipeline.corpus.filters.pair import Pair

SCRIPTS = {
    "th": ("THAI",), "lo": ("LAO",), "km": ("KHMER",), "my": ("MYANMAR",), "zh": ("CJK",),
    "ja": ("HIRAGANA", "KATAKANA", "CJK"), "ko": ("HANGUL", "CJK"), "hi": ("DEVANAGARI",), "mr": ("DEVANAGARI",),
    "ne": ("DEVANAGARI",), "bn": ("BENGALI",), "ta": ("TAMIL",), "te": ("TELUGU",), "gu": ("GUJARATI",),
    "kn": ("KANNADA",), "ml": ("MALAYALAM",), "pa": ("GURMUKHI",), "si": ("SINHALA",), "ar": ("ARABIC",),
    "fa": ("ARABIC",), "ur": ("ARABIC",), "he": ("HEBREW",), "el": ("GREEK",), "ru": ("CYRILLIC",),
    "uk": ("CYRILLIC",), "bg": ("CYRILLIC",), "ka": ("GEORGIAN",), "hy": ("ARMENIAN",), "am": ("ETHIOPIC",),
    **dict.fromkeys(
        "en de fr es it pt nl da sv no nb fi et lv lt pl cs sk sl hr hu ro tr vi id ms tl sw af ca is ga cy eu".split(),
        ("LATIN",),
    ),
}  # fmt: skip
"""The scripts of a language, as Unicode's names of letters begin."""
_COMMON = {
    "en": "the of and to in is what which this that for are was who where how does do name it with on by at from when",
    "de": "der die das und ist was welche welcher welches wie wo wer wann dieses diese ein eine von mit zu den dem im "
    "nicht heißt",
    "fr": "le la les de des du et est quel quelle quels qui où que comment ce cette une un dans pour avec "
    "sur quand au s'appelle",
    "es": "el la los las de del y es qué cuál quién dónde cómo este esta un una en para con por cuándo al se llama",
    "it": "il la lo gli di del della e è che quale chi dove come questo questa un una in per con quando si chiama",
    "pt": "o a os as de do da e é que qual quem onde como este esta isto um uma em para com por quando no na se chama",
    "nl": "de het een en is wat welke wie waar hoe dit deze van met in op voor wanneer niet naam heet",
    "id": "yang dan di dari apa ini itu adalah untuk dengan siapa mana berapa kapan nama pada ke dalam bagaimana",
    "vi": "là gì của và này cái những các trong được ở đâu ai khi nào tên một cho có người",
    "sv": "och är vad vilken vilket det den detta en ett av på i som för med var när heter till",
}  # fmt: skip
_LANGUAGES: dict[str, tuple[str, ...]] = {
    word: tuple(name for name, words in _COMMON.items() if word in words.split())
    for word in dict.fromkeys(" ".join(_COMMON.values()).split())
}
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def language(pair: Pair, *, share: float) -> str:
    """Why a pair is not in its language.

    Question and reasoning must have a share of their letters in the language's script. The answer must have letters of
    it, or none at all; capitals alone (BTS, UNESCO) are an abbreviation in any language.

    Args:
      share: of letters, between 0 and 1.
    """
    scripts = SCRIPTS.get(pair.base_language)
    if scripts is None:
        return f"unknown language: {pair.language!r}"
    for name in ("question", "reasoning"):
        letters = letters_by_script(getattr(pair, name))
        total = sum(letters.values())
        own = sum(letters[script] for script in scripts)
        if total and own < share * total:
            return f"another script: {own / total:.0%} of the {name} is {scripts[0].capitalize()}"
    letters = letters_by_script(pair.answer)
    if letters and not any(letters[script] for script in scripts) and not _abbreviation(pair.answer):
        return f"another script: the answer is {letters.most_common(1)[0][0].capitalize()}"
    if pair.base_language in _COMMON:
        meant = likeliest(f"{pair.question} {pair.reasoning}", pair.base_language)
        if meant != pair.base_language:
            return f"another language: reads like {meant!r}"
    return ""


def letters_by_script(text: str) -> Counter[str]:
    """How many letters of a text belong to each script, by the first word of their Unicode names."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script(character):
            counts[script] += count
    return counts


def likeliest(text: str, language: str) -> str:
    """Of the languages in Latin letters that are known, the one whose commonest words stand in a text most often.

    Another one than `language` only with two words more that are its own, and twice as many.
    """
    hits: Counter[str] = Counter()
    for word in _WORD.findall(text.casefold()):
        hits.update(_LANGUAGES.get(word.replace("’", "'"), ()))
    best = max(_COMMON, key=lambda name: (hits[name], name == language))
    return best if hits[best] >= max(hits[language] + 2, 2 * hits[language]) else language


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    if unicodedata.category(character)[0] not in "LM":
        return ""
    name = unicodedata.name(character, "").split()
    return "" if not name or name[0] in ("COMBINING", "MODIFIER", "ZERO", "VARIATION") else name[0]


def _abbreviation(answer: str) -> bool:
    letters = [character for character in answer if character.isalpha()]
    return all(character.isupper() for character in letters)

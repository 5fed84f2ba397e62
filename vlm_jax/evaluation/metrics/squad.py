"""SQuAD's exact match and F1 (Rajpurkar et al. 2016, 2018), as its evaluate-v2.0 has them; also ViQuAE's."""

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case; ASCII punctuation, then articles dropped; white space collapsed."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    return float(normalise(prediction) in _accepted(answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """The best overlap of words, as the harmonic mean of precision and recall."""
    said = normalise(prediction).split()
    return max(_overlap(said, answer.split()) for answer in _accepted(answers))


def _accepted(answers: Sequence[str]) -> list[str]:
    """Normalised. Answers that come to nothing are left out; where all do, saying nothing is right."""
    return [normalised for answer in answers if (normalised := normalise(answer))] or [""]


def _overlap(said: list[str], answer: list[str]) -> float:
    if not said or not answer:
        return float(said == answer)
    same = sum((Counter(said) & Counter(answer)).values())
    if not same:
        return 0.0
    precision, recall = same / len(said), same / len(answer)
    return 2 * precision * recall / (precision + recall)

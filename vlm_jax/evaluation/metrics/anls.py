"""Average normalised Levenshtein similarity (Biten et al. 2019), of ST-VQA, DocVQA and InfographicVQA.

The best over the accepted answers of 1 − distance / length of the longer text; what comes to less than one half is 0.
The two forms differ in what they do to the texts and in whose lengths they divide by.
"""

from collections.abc import Sequence

_LEAST = 0.5


def anls(prediction: str, answers: Sequence[str]) -> float:
    """The m4c form (facebookresearch/mmf): lower-cased and stripped, for the lengths too. Two empty texts are alike."""
    prediction = prediction.lower().strip()
    return max(_similarity(prediction, answer, max(len(prediction), len(answer))) for answer in map(_m4c, answers))


def anls_lmms(prediction: str, answers: Sequence[str]) -> float:
    """The form of lmms-eval: white space collapsed for the distance, and divided by the lengths of the raw texts.

    Upper-cased: of texts like "straße", which is longer so.
    """
    length = len(prediction.upper())
    collapsed = _collapsed(prediction)
    return max(_similarity(collapsed, _collapsed(one), max(length, len(one.upper()))) for one in answers)


def _m4c(text: str) -> str:
    return text.lower().strip()


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(prediction: str, answer: str, length: int) -> float:
    from rapidfuzz.distance import Levenshtein  # here, so that other metrics load without it

    if not length:
        return 1.0
    similarity = 1 - Levenshtein.distance(prediction, answer) / length
    return similarity if similarity >= _LEAST else 0.0

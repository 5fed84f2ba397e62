"""VQA accuracy (Antol et al. 2015): how many of ten people said the same, by three scripts that differ in details.

`official` is that of VQA, VQAv2 and OK-VQA (GT-Vision-Lab/VQA), `evalai` that of the TextVQA challenge and of
lmms-eval (facebookresearch/mmf), `vlmevalkit` that of open-compass/VLMEvalKit. What looks odd here is theirs.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from vlm_jax.evaluation.metrics.contractions import CONTRACTIONS

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
"""Of the official script and EvalAI's, `(?!<=\\d)(\\.)(?!\\d)`: no "<=" begins where a point stands, so every point
goes that no digit follows."""
_PERIOD_OF_VLMEVALKIT = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_PERIODS = 32
"""The scripts pass re.UNICODE, which is 32, where `sub` takes the number of replacements."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0", **{word: str(number) for number, word in enumerate(_NUMBERS)}}
_ARTICLES = ("a", "an", "the")


def official(prediction: str, answers: Sequence[str]) -> float:
    """Where all answers are the same, the script compares the texts as they are."""
    prediction, answers = trimmed(prediction), [trimmed(answer) for answer in answers]
    if len(set(answers)) > 1:
        prediction, answers = _all(normalise_official, prediction, answers)
    return leave_one_out(prediction, answers)


def evalai(prediction: str, answers: Sequence[str]) -> float:
    return leave_one_out(*_all(normalise_evalai, prediction, answers))


def vlmevalkit(prediction: str, answers: Sequence[str]) -> float:
    return leave_one_out(*_all(normalise_vlmevalkit, prediction, answers))


def leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    """The mean, over the answers, of min(1, a third of how many of the *other* answers are the prediction).

    Summed in the order of the answers, so that it is the scripts' figure to the last bit.
    """
    same = [answer == prediction for answer in answers]
    matches = sum(same)
    return sum(min(1.0, (matches - own) / 3) for own in same) / len(same)


def normalise_official(text: str) -> str:
    return words(without_marks(trimmed(text), PERIOD))


def normalise_vlmevalkit(text: str) -> str:
    return words(without_marks(trimmed(text), _PERIOD_OF_VLMEVALKIT))


def normalise_evalai(text: str) -> str:
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return words(without_marks(trimmed(text), PERIOD))


def _all(normalise: Callable[[str], str], prediction: str, answers: Sequence[str]) -> tuple[str, list[str]]:
    known = {text: normalise(text) for text in {prediction, *answers}}  # ten people often say the same
    return known[prediction], [known[answer] for answer in answers]


def trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def without_marks(text: str, period: re.Pattern[str]) -> str:
    """A mark goes where the text has it beside a space anywhere, or has a comma between digits; else it is a space."""
    thousands = _DIGIT_COMMA_DIGIT.search(text) is not None
    result = text
    for mark in _MARKS:
        if mark in text:
            beside_space = f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if beside_space or thousands else " ")
    return period.sub("", result, count=_MOST_PERIODS)


def words(text: str, contractions: Mapping[str, str] = CONTRACTIONS) -> str:
    """Lower case, numbers up to ten as digits, articles dropped, apostrophes put back."""
    digits = (_DIGITS.get(word, word) for word in text.lower().split())
    return " ".join(contractions.get(word, word) for word in digits if word not in _ARTICLES)

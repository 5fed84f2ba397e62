"""Encyclopedic-VQA (Mensink et al. 2023): exact match, and BEM where that fails, as its evaluation_utils.py has it.

An answer with && in it is a list, of which half may differ; a list of one is written "answer&&".
"""

import re
import string
from collections.abc import Sequence

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import bem as answer_equivalence

BETWEEN = "&&"
"""What stands between the parts of an answer that is a list (`question_type` multi_answer)."""
_PUNCTUATION = str.maketrans("", "", string.punctuation + "‘’´")
_NOT_ANSWER = re.compile(r"\b(?:the answer is|a|an|the)\b")
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {
    "none": "0",
    **{word: str(number) for number, word in enumerate(_NUMBERS)},
    **dict.fromkeys(("entailment", "true"), "yes"),
    **dict.fromkeys(("contradiction", "false"), "no"),
}
_SPAN = "<extra_id_0> "
_LEAST_SHARED = 0.5


def encyclopedic_vqa(prediction: str, answers: Sequence[str], *, question: str = "", bem: str = "") -> float:
    """1 where any answer is matched: exactly, or else, where there is a folder, by BEM.

    Args:
      question: its text, which BEM reads.
      bem: folder of the model (`metrics.bem`); without one, exact match alone decides, which is stricter.

    Raises:
      InputError: an answer of which normalising leaves nothing, as the script refuses it; what BEM refuses.
    """
    exact = [_matches(prediction, answer) for answer in answers]  # of all, so that each is looked at
    if any(exact) or not bem:
        return float(any(exact))
    references = [",".join(part for part in answer.split(BETWEEN) if part) for answer in answers]
    return answer_equivalence.best(prediction, references, question=question, bem=bem)


def normalise(text: str) -> str:
    """Lower case, punctuation, articles and "the answer is" dropped, numbers up to ten as digits, true as yes.

    The script also puts the apostrophes of contractions back, on both sides and after dropping all there were: that
    makes no two texts equal that were not, and none different.
    """
    text = text.lower().replace("\n", " ").replace("\t", " ").strip()
    if text.startswith(_SPAN):
        text = text.replace(_SPAN, "")
    text = _NOT_ANSWER.sub(" ", text.translate(_PUNCTUATION))
    return " ".join(_WORDS.get(word, word) for word in text.split())


def _matches(prediction: str, answer: str) -> bool:
    wanted = {normalised for part in answer.split(BETWEEN) if (normalised := normalise(part))}
    if not wanted:
        raise InputError(f"encyclopedic_vqa: of the answer {answer!r} normalising leaves nothing; mend the annotations")
    if BETWEEN not in answer:
        return normalise(prediction) in wanted
    parts = prediction.replace(" and ", ",").replace(" & ", ",").split(",")
    said = {normalised for part in parts if (normalised := normalise(part))}
    return len(wanted & said) / len(wanted | said) >= _LEAST_SHARED

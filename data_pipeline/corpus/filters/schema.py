"""Whether a pair has what a pair needs, and whether its question is asked like one."""

import re
from collections.abc import Sequence

from data_pipeline.corpus.filters.pair import NAMES, Pair
from data_pipeline.values import quoted
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.any_language import normalise

NO_MARK = ("th", "lo", "km", "my")
"""Languages whose questions end with no mark of their own; of all others the last sentence must have one of MARKS."""
MARKS = "?？؟;՞"  # the semicolon is Greek's question mark
_CLOSING = " \"'”’»)]」』"
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"'”’)]*\s+(?=\S)")
# In English one may also be told to do something. What a model is told beside its question ("Think step by step.")
# begins so too.
REQUESTS = frozenset(
    "answer choose count describe explain find give identify list look mention name point say select specify state "
    "tell think write please read consider compare estimate briefly use".split()
)
_TEMPLATE = re.compile(r"\{[a-z_ ]+\}|<[a-z_ ]+>|\[(?:insert|your|the|answer|question)\b[^\]]*\]", re.IGNORECASE)
_NOTHING = frozenset(["n/a", "null", "none given", "tbd", "todo", "undefined", "not applicable", "ไม่ระบุ"])


def schema(pair: Pair, *, required: Sequence[str], longest_question: int, longest_answer: int) -> str:
    """Why a pair cannot be used as it is: a field is empty, the question is none, the answer is too long.

    Args:
      required: fields that must not be empty, beside id, question and answer.
      longest_question: characters; `longest_answer` of the short answer, likewise.
    """
    if unknown := [name for name in required if name not in NAMES]:
        raise InputError(f"schema.required names {', '.join(unknown)}; a pair has {', '.join(NAMES)}")
    empty = [name for name in dict.fromkeys(("id", "question", "answer", *required)) if not getattr(pair, name).strip()]
    if empty:
        return f"empty field: {', '.join(empty)}"
    for name in ("question", "answer"):
        if found := _TEMPLATE.search(getattr(pair, name)):
            return f"unfilled template: {found.group()} in the {name}"
    if pair.answer.strip().casefold() in _NOTHING:
        return f"no answer: {quoted(pair.answer)}"
    if not any(map(str.isalnum, pair.question)):
        return f"no question: {quoted(pair.question)}"
    if len(pair.question) > longest_question:
        return f"long question: {len(pair.question):,} characters"
    if len(pair.answer) > longest_answer or "\n" in pair.answer.strip():
        return f"long answer: {len(pair.answer):,} characters" + (" in several lines" if "\n" in pair.answer else "")
    # What is much shorter is no repetition: normalising all questions would take longer than all other checks.
    if 2 * len(pair.answer) > len(pair.question) and normalise(pair.question) == normalise(pair.answer):
        return "no answer: it repeats the question"
    if not asks(pair.question, pair.base_language):
        return f"no question: ends with {quoted(pair.question[-30:])}"
    return ""


def asks(question: str, language: str) -> bool:
    """Whether the last sentence is a question by its mark; in English, or a request. True where no mark is used."""
    if language in NO_MARK:
        return True
    question = question.strip()
    if question.rstrip(_CLOSING)[-1:] in tuple(MARKS) and (language == "el" or not question.endswith(";")):
        return True
    if language != "en":
        return False
    last = _SENTENCE_END.split(question)[-1]
    first_word = re.match(r"[\"'“‘(]*([a-z]+)", last.casefold())
    return bool(first_word and first_word[1] in REQUESTS and len(last.split()) > 1)

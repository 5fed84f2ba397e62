"""The task of writing a question about an image and its answer: records that teach it, and whether it was done right.

Questions and answers are those of the built-in corpus of invented objects, whose facts tell which answers are right.
"""

import difflib
import functools
import random
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.corpus.drawn import wordings
from data_pipeline.corpus.drawn.objects import CATALOGUE
from data_pipeline.corpus.drawn.things import Thing
from data_pipeline.records import Record
from vlm_jax.evaluation.metrics import score

PROMPT = "Write a question about this and its answer."
QUESTION, ANSWER = "Question: ", "Answer: "
THINGS: dict[str, Thing] = {thing.key: thing for thing in CATALOGUE}
_ALIKE = 0.8  # a question that is no wording of the corpus is taken for the one that it resembles so much


def writing_records(records: Sequence[Record], count: int, seed: int) -> list[Record]:
    """Some of the questions and answers about images, turned round: asked for a pair, one writes it in two lines.

    Args:
      records: of one question each, the image before it; those that are answered step by step are left out.
      count: records, at most; chosen at random, so that all kinds of question and both languages are among them.
    """
    short = [record for record in records if record.reasoning is None]
    chosen = random.Random(seed).sample(short, min(count, len(short)))
    return [_turned_round(record) for record in chosen]


def _turned_round(record: Record) -> Record:
    asked, answered = record.messages
    image, question = asked["content"]
    messages = [
        {"role": "user", "content": [image, {"type": "text", "text": PROMPT}]},
        {"role": "assistant", "content": f"{QUESTION}{question['text']}\n{ANSWER}{answered['content']}"},
    ]
    return Record(f"write-{record.id}", messages, task="write", fact_id=record.fact_id, provenance=record.provenance)


def parsed(text: str) -> tuple[str, str] | None:
    """(question, answer) of two lines; None of anything else."""
    lines = text.strip().split("\n")
    if len(lines) != 2 or not lines[0].startswith(QUESTION) or not lines[1].startswith(ANSWER):
        return None
    question, answer = lines[0].removeprefix(QUESTION).strip(), lines[1].removeprefix(ANSWER).strip()
    return (question, answer) if question and answer else None


@functools.cache
def kind_of(question: str) -> tuple[str, str] | None:
    """(the fact that is asked for, the language of the answer) of a wording of the corpus, or of one much like it."""
    known = {
        wording: (kind, language)
        for kind, languages in wordings.QUESTIONS.items()
        for language, every in languages.items()
        for wording in every
    }
    nearest = difflib.get_close_matches(question, known, n=1, cutoff=_ALIKE)
    return known[nearest[0]] if nearest else None


def right(question: str, answer: str, thing: Thing) -> bool:
    """Whether an answer is what the corpus has for the thing in the image; of other questions it is not."""
    if (asked := kind_of(question)) is None:
        return False
    kind, language = asked
    return bool(score("normalised", answer, [thing.facts[kind][("en", "th").index(language)]]))


def figures(written: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What came of asking for pairs.

    Args:
      written: `text`, and `object`, a key of `THINGS`, of each.

    Returns:
      n; the share of texts that are a pair; of the pairs, the shares with a question that the corpus knows and with the
      right answer; how many questions are distinct; pairs by kind and by language.
    """
    pairs = [(*pair, THINGS[one["object"]]) for one in written if (pair := parsed(one["text"]))]
    asked = [found for question, _, _ in pairs if (found := kind_of(question))]
    most = max(1, len(pairs))
    return {
        "n": len(written),
        "pairs": len(pairs) / max(1, len(written)),
        "known_questions": len(asked) / most,
        "right": sum(right(*pair) for pair in pairs) / most,
        "distinct_questions": len({question for question, _, _ in pairs}),
        "kinds": {kind: sum(found[0] == kind for found in asked) for kind in wordings.FACTS},
        "languages": {language: sum(found[1] == language for found in asked) for language in ("en", "th")},
    }

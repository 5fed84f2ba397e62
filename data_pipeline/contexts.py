"""What stands in the context of a record: which of the passages that were found, in which order, and with what answer.

Pure: everything follows from the record, the order of passages found for it, and the settings. Finding them is
`vlm_jax.retrieval`'s, putting a context into a prompt `prompting`'s.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data_pipeline.records import Record
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import score
from vlm_jax.retrieval import recall
from vlm_jax.retrieval.passages import Passage

BETWEEN = "\n\n"
"""Passages of a context."""


@dataclasses.dataclass(frozen=True)
class ContextRules:
    """Attributes:
    k: passages of a context, beside distractors.
    oracle: the gold passages alone, in place of those found.
    distractors: so many of the best found that are wrong beside them, and all in an order that follows from the seed.
    without_answer: the share of records whose context lacks the answer; that becomes `refusal`.
    refusal: what is right to say then.
    seed: of that share and of orders.
    """

    k: int = 10
    oracle: bool = False
    distractors: int = 0
    without_answer: float = 0.0
    refusal: str = "unanswerable"
    seed: int = 0

    def __post_init__(self):
        errors = []
        if self.k < 1:
            errors.append(f"k is {self.k}; wanted at least 1")
        if self.distractors < 0:
            errors.append(f"distractors is {self.distractors}; wanted at least 0")
        if not 0 <= self.without_answer <= 1:
            errors.append(f"without_answer is {self.without_answer}; wanted a share from 0 to 1")
        if not self.refusal.strip():
            errors.append("refusal is empty; say what is right where the context lacks the answer")
        if errors:
            raise InputError(errors)


def gold_of(record: Record, key: str) -> list[str]:
    """Ids of the passages that answer a record: its `fact_id`, or what its provenance has under `key`, one or a list.

    Raises:
      InputError: that is no text, nor a list of them.
    """
    value = record.fact_id if key == "fact_id" else (record.provenance or {}).get(key)
    named = value if isinstance(value, list) else [] if value in (None, "") else [value]
    if not all(isinstance(one, str) and one for one in named):
        raise InputError(f"{record.where or record.id}: provenance.{key} is {value!r}; wanted the id of a passage")
    return list(dict.fromkeys(named))


def unanswered(ids: Sequence[str], rules: ContextRules) -> set[str]:
    """Of these records, those whose context is to lack the answer: the share to the nearest record, whatever their
    order."""
    count = round(rules.without_answer * len(ids))
    return set(sorted(ids, key=lambda id: _digest(rules.seed, "without_answer", id))[:count])


def with_context(
    record: Record,
    found: Sequence[str],
    gold: Sequence[str],
    passage_of: Callable[[str], Passage],
    rules: ContextRules,
    *,
    lacks_answer: bool = False,
) -> Record:
    """The record with its context, and in its provenance which passages that are, at which rank each was found.

    Args:
      found: ids, the best first.
      gold: ids of those that answer it, as far as it says.

    Raises:
      InputError: the oracle is wanted and no passage is gold, or all that were found have the answer.
    """
    answers = _answers_of(record)

    def has_answer(id: str) -> bool:
        return id in gold or any(score("contains", passage_of(id).words, answer) for answer in answers)

    if rules.oracle and not gold:
        raise InputError(f"{record.where or record.id}: names no gold passage, which the oracle shows")
    if rules.oracle:
        shown = recall.oracle(found, gold, len(gold) + rules.distractors)
    else:
        wrong = [id for id in found[rules.k :] if id not in gold]
        shown = [*found[: rules.k], *wrong[: rules.distractors]]
    if lacks_answer:
        count = len(shown)
        shown = [id for id in found if not has_answer(id)][:count]
        if not shown:
            raise InputError(
                f"{record.where or record.id}: all {len(found)} passages found for it have its answer, so none can "
                "lack it; raise depth"
            )
    if rules.distractors:
        order = np.random.default_rng(_digest(rules.seed, "order", record.id)).permutation(len(shown))
        shown = [shown[place] for place in order]
    ranks = {id: rank for rank, id in enumerate(found, 1)}
    used = [{"id": id, "rank": ranks.get(id), **({"gold": True} if id in gold else {})} for id in shown]
    provenance = {**(record.provenance or {}), "passages": used}
    if rules.without_answer:
        provenance["answer_in_context"] = not lacks_answer
    changed: dict[str, Any] = {}
    if lacks_answer:
        changed = {"messages": [_refusing(message, rules.refusal) for message in record.messages]}
        changed["answers"] = None if record.answers is None else [rules.refusal]
    context = BETWEEN.join(passage_of(id).words for id in shown)
    return dataclasses.replace(record, context=context, provenance=provenance, **changed)


def _answers_of(record: Record) -> list[str]:
    said = [message["content"] for message in record.messages if message["role"] == "assistant"]
    texts = [text if isinstance(text, str) else "".join(part["text"] for part in text) for text in said]
    return [*(record.answers or ()), *texts]


def _refusing(message: Mapping[str, Any], refusal: str) -> dict[str, Any]:
    return {**message, "content": refusal} if message["role"] == "assistant" else dict(message)


def _digest(seed: int, what: str, id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {what} {id}".encode("utf-8", "surrogatepass")).digest()[:8], "big")

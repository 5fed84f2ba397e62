"""Which of a teacher's pairs are the parity gap: student and teacher answer them, and one of the two is wrong.

A pair is kept where the student is wrong and the teacher, asked its own question again without having it before its
eyes, says the same as when it wrote it. Both are asked in the words in which is trained and evaluated later.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.parity import matchers
from data_pipeline.parity.matchers import MATCHERS
from data_pipeline.parity.pairs import OUTCOMES, Compared, Pair
from data_pipeline.prompting import Prompt, of_settings
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.request import CallFailed, Failure, ImageFile, Reply, Request
from data_pipeline.teachers.store import media_type_of
from data_pipeline.teachers.teacher import Teacher
from vlm_jax.evaluation.metrics import judge

STAGE = "identify"
Right = Callable[[Sequence[tuple[Pair, str]]], Sequence[bool | None]]
"""Whether each of these answers is that of its pair; None where whoever judges would not say."""


def asked(pair: Pair, prompt: Prompt) -> str:
    """The question as it is asked."""
    before, after = prompt.around("")
    return f"{before}{pair.question}{after}{prompt.suffix}"


def requests(pairs: Sequence[Pair], settings: Mapping[str, Any], *, stage: str, samples: int = 1) -> list[Request]:
    """What a model is asked, so many times for each pair, one after the other; arguments as `answers` takes them."""
    prompt = of_settings(settings["ask"])
    temperature = float(settings["identify"]["temperature"]) if samples > 1 else 0.0
    parameters = {"temperature": temperature, "max_output_tokens": settings["ask"]["max_output_tokens"]}
    return [
        Request(
            "text",
            asked(pair, prompt),
            (_image(pair),),
            parameters=parameters,
            partial=True,  # as an evaluation scores what a model has said up to its most tokens
            sample=number,
            stage=stage,
        )
        for pair in pairs
        for number in range(samples)
    ]


def answers(
    asker: Asker, who: Teacher, pairs: Sequence[Pair], settings: Mapping[str, Any], *, stage: str, samples: int = 1
) -> list[tuple[str, ...] | Failure]:
    """What a model says to each question, so many times; why not where it could not be asked, or would not answer.

    Args:
      settings: of the whole alignment.
      samples: 1: its likeliest answer. More are drawn.
    """
    replies = asker.ask(who, requests(pairs, settings, stage=stage, samples=samples))
    found: list[tuple[str, ...] | Failure] = []
    for start in range(0, len(replies), samples):
        own = replies[start : start + samples]
        failed = [one for one in own if isinstance(one, Failure) and one.reason != "empty"]  # silence is an answer
        found.append(failed[0] if failed else tuple(map(_text, own)))
    return found


def answered(
    pairs: Sequence[Pair], student: Sequence[tuple[str, ...] | Failure], teacher: Sequence[tuple[str, ...] | Failure]
) -> tuple[list[Pair], list[str], list[tuple[str, ...]], list[str]]:
    """(the pairs that both were asked, what the student said, what the teacher said, notes of the others)."""
    notes, kept = [], []
    for pair, own, other in zip(pairs, student, teacher, strict=True):
        failed = [(who, one) for who, one in (("student", own), ("teacher", other)) if isinstance(one, Failure)]
        notes += [
            f"{pair.id}: the {who} did not answer: {CallFailed(one.reason, one.detail)}" for who, one in failed[:1]
        ]
        if not isinstance(own, Failure) and not isinstance(other, Failure):
            kept.append((pair, own[0], other))
    return [pair for pair, _, _ in kept], [own for _, own, _ in kept], [other for _, _, other in kept], notes


def _image(pair: Pair) -> ImageFile:
    path = Path(pair.file)
    return ImageFile(pair.digest, path, media_type_of(path))


def _text(reply: Reply | Failure) -> str:
    return "" if isinstance(reply, Failure) else (reply.text or "").strip()


def by_rule(name: str) -> Right:
    """Of a matcher of `MATCHERS` that is no judge."""
    matcher = MATCHERS[name]
    assert matcher is not None, name
    return lambda said: [bool(words) and matcher.right(words, pair.answer) for pair, words in said]


def by_judge(asker: Asker, who: Teacher) -> Right:
    """A teacher is asked whether an answer is right; each question and answer once. Partly right is not right."""

    def right(said: Sequence[tuple[Pair, str]]) -> list[bool | None]:
        requests = [
            Request(
                "text",
                judge.prompt(words, [pair.answer], pair.question),
                schema=judge.SCHEMA,
                parameters={"temperature": 0.0},
                stage="judge",
            )
            for pair, words in said
        ]
        replies = iter(asker.ask(who, [one for one, (_, words) in zip(requests, said, strict=True) if words], _verdict))
        return [_judged(next(replies)) if words else False for _, words in said]

    return right


def _judged(reply: Reply | Failure) -> bool | None:
    return None if isinstance(reply, Failure) else judge.verdict(_text(reply)) == "yes"


def _verdict(request: Request, reply: Reply) -> None:
    if judge.verdict(reply.text or "") is None:
        raise CallFailed("not what was asked for", f"no verdict: {(reply.text or '')[:200]!r}")


def compared(
    pairs: Sequence[Pair],
    student: Sequence[str],
    teacher: Sequence[tuple[str, ...]],
    right: Right,
    *,
    agree: float = 1.0,
) -> list[Compared]:
    """Every pair with both answers and whether they are right; without those that were not all judged.

    Args:
      student, teacher: what they said to each pair; the teacher once for each sample.
      agree: the share of a teacher's samples that must be right, for it to count as right.
    """
    said = [(pair, words) for pair, words in zip(pairs, student, strict=True)]
    samples = [(pair, words) for pair, own in zip(pairs, teacher, strict=True) for words in own]
    student_right, sample_right = right(said), iter(right(samples))
    found = []
    for pair, words, own, mine in zip(pairs, student, teacher, student_right, strict=True):
        judged = [next(sample_right) for _ in own]
        if mine is None or None in judged:
            continue
        least = max(1, math.ceil(agree * len(own) - 1e-9))  # one, also where a share of 0 is asked for
        found.append(Compared(pair, words, tuple(own), mine, sum(map(bool, judged)) >= least))
    return found


@dataclass(frozen=True)
class Agreement:
    """How many pairs had which outcome, in all and by type; and what the other rules would keep.

    Attributes:
      outcomes: {outcome: pairs}; by_type: {type: the same}.
      kept_by: {matcher: pairs that it would keep of the same answers}; judges are not asked for it.
    """

    outcomes: dict[str, int]
    by_type: dict[str, dict[str, int]]
    kept_by: dict[str, int]


def agreement(found: Sequence[Compared], agree: float) -> Agreement:
    def counts(members: Sequence[Compared]) -> dict[str, int]:
        return {outcome: sum(one.outcome == outcome for one in members) for outcome in OUTCOMES}

    pairs = [one.pair for one in found]
    student, teacher = [one.student for one in found], [one.teacher for one in found]
    kept_by = {
        name: sum(one.kept for one in compared(pairs, student, teacher, by_rule(name), agree=agree))
        for name in MATCHERS
        if name != matchers.JUDGE
    }
    types = list(dict.fromkeys(pair.type for pair in pairs))
    by_type = (
        {kind: counts([one for one in found if one.pair.type == kind]) for kind in types} if len(types) > 1 else {}
    )
    return Agreement(counts(found), by_type, kept_by)

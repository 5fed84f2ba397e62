"""A large model writes questions and answers about images that nobody has labelled: the first step of MPA.

What is asked, how a reply is read, and which of the pairs are too many of a kind. The question keeps its question mark;
MPA's published code drops it, and keeps one question up to 150 times.
"""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline import marks
from data_pipeline.parity import matchers
from data_pipeline.parity.pairs import Pair
from data_pipeline.parity.prompts import Prompt
from data_pipeline.parity.unlabelled import Image
from data_pipeline.teachers.request import UNUSABLE, CallFailed, Failure, Reply, Request
from vlm_jax.errors import InputError

STAGE = "annotate"
_QUESTION = r"(?:question|q|คำถาม)"
_ANSWER = r"(?:answer|a|คำตอบ)"
_MARK = r"[*_#>\s-]*"
_BEGIN = rf"(?:^{_MARK}(?:\d+[.)]\s*)?{_MARK}|(?<=[?？])[ \t]+)"  # of a line, or behind a question on the same line
_LABEL = re.compile(
    rf"{_BEGIN}(?:(?P<q>{_QUESTION})|(?P<a>{_ANSWER}))\s*\d*\s*{_MARK}[:：]{_MARK}", re.IGNORECASE | re.MULTILINE
)


def requests(images: Sequence[Image], prompt: Prompt, settings: Mapping[str, Any], number: int) -> list[Request]:
    """For each image so many requests, one after the other, of one kind of question after the other.

    Args:
      settings: `config.annotate`.
      number: of the round, from 1: each asks anew.
    """
    parameters = {"max_output_tokens": settings["max_output_tokens"], "temperature": float(settings["temperature"])}
    found = []
    for image in images:
        for turn in range(settings["pairs"]):
            kind = kind_of(image, turn, settings)
            found.append(
                Request(
                    "text",
                    prompt.rendered(kind),
                    (image.file,),
                    parameters=parameters,
                    partial=True,  # a question that is whole counts, whatever the teacher went on to say
                    sample=(number - 1) * settings["pairs"] + turn,
                    stage=STAGE,
                )
            )
    return found


def kind_of(image: Image, turn: int, settings: Mapping[str, Any]) -> str:
    """The kind of question that an image is asked for. Where it begins follows from the image alone, so that images may
    be added without asking anew about the others; over many images all come up equally often."""
    first = int(hashlib.sha256(image.id.encode()).hexdigest()[:8], 16)
    return settings["types"][(first + turn) % len(settings["types"])]


def check(request: Request, reply: Reply) -> None:
    """Raises CallFailed where a reply has no question with an answer, so that the teacher is asked again."""
    if parsed(reply.text or "") is None:
        raise CallFailed("not what was asked for", f"no question with an answer: {(reply.text or '')[:120]!r}")


def parsed(text: str) -> tuple[str, str] | None:
    """The first question and answer in a reply, whatever stands around them; None where there are none.

    Read are lines that begin with "Question:" and "Answer:" (also bold, numbered, in Thai, or as Q and A), and an
    object of JSON with these keys.
    """
    if (found := _of_json(text)) is not None:
        return found
    labels = list(_LABEL.finditer(text))
    for label, after in zip(labels, labels[1:], strict=False):
        if label["q"] and after["a"]:
            end = next((one.start() for one in labels if one.start() > after.start()), len(text))
            question, answer = _plain(text[label.end() : after.start()]), _first_line(text[after.end() : end])
            if question and answer:
                return question, answer
    return None


def _of_json(text: str) -> tuple[str, str] | None:
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        return None
    try:
        value = json.loads(text[start : end + 1])
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    own = {str(key).lower(): one for key, one in value.items()}
    question, answer = own.get("question"), own.get("answer")
    if not isinstance(question, str) or isinstance(answer, bool) or not isinstance(answer, str | int | float):
        return None
    question, answer = _plain(question), _plain(str(answer))
    return (question, answer) if question and answer else None


def _first_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return _plain(lines[0]) if lines else ""


def _plain(text: str) -> str:
    """In one line, without marks of bold type and quotation around it."""
    text = " ".join(text.split()).strip("*_` ")
    if len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("'", "'"), ("“", "”"), ("<", ">")}:
        text = text[1:-1].strip()
    return text


@dataclass(frozen=True)
class Written:
    """What came of a round: the pairs that are gone on with, and notes of the others by reason."""

    pairs: list[Pair]
    left_out: dict[str, list[str]]


NO_PAIR, SAYS_NOTHING, MARKED, TWICE, OVERUSED, TYPE_FULL, NO_ANSWER = (
    "no question with an answer",
    "an answer of no letter or digit",
    "a mark that would be read as an image or a turn",
    "the same question about the same image",
    "a question that is asked about many images",
    "more of a type than of the others",
    "no reply",
)


def read(
    images: Sequence[Image],
    replies: Sequence[Reply | Failure],
    settings: Mapping[str, Any],
    *,
    number: int = 1,
    seed: int = 0,
    earlier: Sequence[Pair] = (),
) -> Written:
    """The pairs in the replies to `requests`, thinned.

    Args:
      earlier: of the rounds before: what they have is not taken again, and counts towards how often a question is used.
    """
    turns = settings["pairs"]
    left_out: dict[str, list[str]] = {}
    pairs = []
    for place, image in enumerate(images):
        for turn in range(turns):
            reply, identity = replies[place * turns + turn], f"{image.id}-{number}-{turn}"
            if isinstance(reply, Failure):
                # A reply that has no pair, however often it was asked for, came all the same.
                why = NO_PAIR if reply.reason in UNUSABLE else NO_ANSWER
                detail = reply.detail.removeprefix(f"{NO_PAIR}: ")
                note = detail if why == NO_PAIR and detail else ": ".join(filter(None, (reply.reason, detail)))
                left_out.setdefault(why, []).append(f"{image.file.path.name} ({identity}): {note}")
                continue
            found = parsed(reply.text or "")
            if found is None:
                left_out.setdefault(NO_PAIR, []).append(f"{identity}: {reply.text!r}")
            else:
                file, kind = image.file, kind_of(image, turn, settings)
                pairs.append(Pair(identity, image.id, str(file.path), file.digest, *found, kind, number))
    return chosen(pairs, settings, seed=seed, left_out=left_out, earlier=earlier)


def chosen(
    pairs: Sequence[Pair],
    settings: Mapping[str, Any],
    *,
    seed: int,
    left_out: dict[str, list[str]] | None = None,
    earlier: Sequence[Pair] = (),
) -> Written:
    """Pairs that can be answered and trained on, thinned; wherever they come from."""
    notes: dict[str, list[str]] = {} if left_out is None else left_out
    usable = []
    for pair in pairs:
        if matchers.says_nothing(pair.answer):
            notes.setdefault(SAYS_NOTHING, []).append(f"{pair.id}: {pair.question} {pair.answer!r}")
        elif wrong := [*marks.errors_in(pair.question), *marks.places_in(pair.question), *marks.errors_in(pair.answer)]:
            notes.setdefault(MARKED, []).append(f"{pair.id}: {wrong[0]}")
        else:
            usable.append(pair)
    return thinned(usable, settings, seed=seed, left_out=notes, earlier=earlier)


def thinned(
    pairs: Sequence[Pair],
    settings: Mapping[str, Any],
    *,
    seed: int,
    left_out: dict[str, list[str]] | None = None,
    earlier: Sequence[Pair] = (),
) -> Written:
    """Without what is there twice, what is asked about too many images, and what its type has too many of.

    Which of too many stay is decided by a hash of seed and id, so that it does not depend on their order.
    """
    notes = {} if left_out is None else left_out
    asked = {(pair.image, _same(pair.question)) for pair in earlier}
    uses = Counter(_same(pair.question) for pair in earlier)
    stayed: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: _hash(seed, pair.id)):
        words = _same(pair.question)
        if (pair.image, words) in asked:
            notes.setdefault(TWICE, []).append(f"{pair.id}: {pair.question}")
        elif uses[words] >= settings["same_question"]:
            notes.setdefault(OVERUSED, []).append(f"{pair.id}: {pair.question}")
        else:
            asked.add((pair.image, words))
            uses[words] += 1
            stayed.append(pair)
    counts: Counter[Hashable] = Counter()
    most = _most_of_a_type(stayed, settings["balance"])
    stay = []
    for pair in stayed:
        counts[pair.type] += 1
        if counts[pair.type] > most:
            notes.setdefault(TYPE_FULL, []).append(f"{pair.id}: {pair.type}")
        else:
            stay.append(pair)
    return Written(sorted(stay, key=lambda pair: pair.id), notes)


def sorted_out(pairs: Sequence[Pair]) -> Written:
    """Pairs whose answers are there already: none is left out. Raises InputError where an answer says nothing."""
    empty = [f"{pair.id}: {pair.answer!r}" for pair in pairs if matchers.says_nothing(pair.answer)]
    if empty:
        raise InputError(
            f"{len(empty):,} answers have no letter and no digit, so that every prediction would fit them: "
            f"{', '.join(empty[:5])}; take them out of both files"
        )
    return Written(list(pairs), {})


def _most_of_a_type(pairs: Sequence[Pair], balance: float) -> float:
    counts = Counter(pair.type for pair in pairs)
    return balance * min(counts.values()) if balance and len(counts) > 1 else len(pairs)


def _same(question: str) -> str:
    """A question as it counts for being the same: case, spaces and the marks at its end aside."""
    return " ".join(unicodedata.normalize("NFC", question).casefold().split()).rstrip("?？.! ")


def _hash(seed: int, identity: str) -> bytes:
    return hashlib.sha256(f"{seed} {identity}".encode()).digest()

"""What a reviewer reads and may rewrite in a record, and the key by which a decision knows what it was about.

A record's last question and answer are under review; earlier turns are only shown. A reply that spells out the
reasoning before the answer is taken apart here and put together again, whether the record's `reasoning` is what stands
before the answer or the whole reply, as the corpus pipeline has it.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.reasoning import chain_of_thought
from data_pipeline.records import Record, from_json, images_of, to_json
from vlm_jax import locations
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.chain_of_thought import LABEL, MARKS

_BETWEEN = re.compile(rf"\s*(?:{LABEL})?\s*", re.IGNORECASE)
"""What stands between reasoning and answer in a reply: a break, with or without a label."""
_LABELLED = re.compile(rf"(.*\S)(\s+(?:{LABEL})\s*)(.+)", re.IGNORECASE | re.DOTALL)
"""Reasoning and an answer behind its last label."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and line break."""
_THAI = re.compile("[\u0e00-\u0e7f]")


class Texts(NamedTuple):
    """The three texts under review; `reasoning` is None where the record has none."""

    question: str
    answer: str
    reasoning: str | None = None


def texts_of(record: Record) -> Texts:
    """The last question and its answer. A record that ends with the question has its first accepted answer, or ''."""
    asked = _last(record, "user")
    question = "" if asked is None else _text(record.messages[asked]["content"])
    reply = _taken_apart(record)
    return Texts(question, reply.answer, reply.steps)


def earlier_turns(record: Record) -> list[tuple[str, str]]:
    """(role, text) of the messages before the question under review."""
    asked = _last(record, "user")
    return [(message["role"], _text(message["content"])) for message in record.messages[: asked or 0]]


def with_texts(record: Record, texts: Texts) -> Record:
    """The record with other texts; images, earlier turns and all else stay.

    A reply that began with the reasoning begins with the new one, with the same label before the answer. In `answers`
    the old answer is replaced by the new one.
    """
    old = _taken_apart(record)
    messages = [dict(message) for message in record.messages]
    asked, replied = _last(record, "user"), _reply(record)
    reply = f"{texts.reasoning}{old.between}{texts.answer}" if old.between else texts.answer
    if asked is not None:
        messages[asked]["content"] = _with_text(messages[asked]["content"], texts.question)
    if replied is not None:
        messages[replied]["content"] = _with_text(messages[replied]["content"], reply)
    answers = record.answers
    if answers is not None:
        answers = list(dict.fromkeys(texts.answer if answer == old.answer else answer for answer in answers))
    reasoning = reply if old.whole else texts.reasoning
    return dataclasses.replace(record, messages=messages, answers=answers, reasoning=reasoning)


def check_texts(record: Record, texts: Texts, folder: Path) -> Record:
    """`with_texts`, and the rules of a record held to what came out.

    Raises:
      InputError: an empty question or answer, a control character, reasoning where the record has none or that ends
        with another answer, or what no record may hold.
    """
    errors = [f"the {name} is empty" for name in ("question", "answer") if not getattr(texts, name).strip()]
    errors += [
        f"the {name} contains the control character {found[0]!r}; remove it"
        for name, text in texts._asdict().items()
        if text is not None and (found := _CONTROL.search(text))
    ]
    steps = texts_of(record).reasoning
    if (texts.reasoning is None) != (steps is None):
        errors.append("the record has no reasoning" if steps is None else "the reasoning is missing")
    elif texts.reasoning is not None and not texts.reasoning.strip():
        errors.append("the reasoning is empty")
    elif texts.reasoning is not None and not errors:
        errors += _contradictions(_taken_apart(record), texts)
    if errors:
        raise InputError(errors)
    edited = with_texts(record, texts)
    from_json(to_json(edited, folder), where="the edited record", image_root=folder, training=False)
    return edited


def _contradictions(old: "_Reply", texts: Texts) -> list[str]:
    """Why a reasoning and a short answer are no reply together: the rule of the filter chain_of_thought, whatever
    stands between them in the record."""
    if old.between.strip() and "\n" in texts.answer.strip() and "\n" not in old.answer:
        return ["the answer has several lines; behind a reasoning it has one"]
    short = " ".join(texts.answer.split())
    chain = Pair("", texts.question, short, reasoning=f"{texts.reasoning}\n{MARKS[0]} {short}")
    reason = chain_of_thought(chain, least=1, longest=len(chain.reasoning))
    return [f"the reasoning and the answer contradict each other: {reason}"] if reason else []


def content_key(record: Record) -> str:
    """A digest of everything a reviewer judges: messages, images as they are in their files, reasoning, context.

    A decision about a record of the same id with another digest is about something else.
    """
    digest = hashlib.sha256()
    plain = [[message["role"], _without_images(message["content"])] for message in record.messages]
    written = json.dumps([plain, record.answers, record.reasoning, record.context], ensure_ascii=False)
    digest.update(written.encode("utf-8", "surrogatepass"))
    for image in images_of(record):
        try:
            content = image if isinstance(image, bytes) else locations.read_bytes(image)
        except (OSError, InputError):
            content = b""  # no file: a decision about the record without its image is of another content
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]


def language_of(text: str, language: str = "") -> str:
    """The `lang` attribute of a text: Thai by its letters, else the record's language; '' where neither is known."""
    if _THAI.search(text):
        return "th"
    return language if language != "th" else "en" if text.isascii() else ""


def _last(record: Record, role: str) -> int | None:
    return next((i for i in reversed(range(len(record.messages))) if record.messages[i]["role"] == role), None)


def _reply(record: Record) -> int | None:
    """The message that answers the last question, if there is one."""
    return len(record.messages) - 1 if record.messages[-1]["role"] == "assistant" else None


class _Reply(NamedTuple):
    """`between` is '' where the reply is the answer alone; `whole`: the record's `reasoning` is the whole reply."""

    steps: str | None
    between: str
    answer: str
    whole: bool = False


def _taken_apart(record: Record) -> _Reply:
    replied, steps = _reply(record), record.reasoning
    if replied is None:
        return _Reply(steps, "", record.answers[0] if record.answers else "")
    reply = _text(record.messages[replied]["content"])
    if steps == reply:
        labelled = _LABELLED.fullmatch(reply)
        return _Reply(*labelled.groups(), whole=True) if labelled else _Reply(None, "", reply, whole=True)
    if not steps or not reply.startswith(steps) or not reply[len(steps)].isspace():
        return _Reply(steps, "", reply)
    end = _BETWEEN.match(reply, len(steps)).end()
    return _Reply(steps, reply[len(steps) : end], reply[end:])


def _text(content: str | list[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _without_images(content: str | list[Mapping[str, Any]]) -> Any:
    return content if isinstance(content, str) else [part.get("text") for part in content]


def _with_text(content: str | list[dict[str, Any]], text: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return text
    if _text(content) == text:
        return content
    parts, written = [], False
    for part in content:
        if part["type"] != "text":
            parts.append(part)
        elif not written:
            parts.append({"type": "text", "text": text})
            written = True
    return parts if written else [*parts, {"type": "text", "text": text}]

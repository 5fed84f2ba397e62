"""One question with its answer about one image, as the filters see it.

Conversations on disk are `data_pipeline.records`'; how a question is put to a model is not known here.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from data_pipeline.marks import HALF_A_CHARACTER
from data_pipeline.records import Record, images_of
from data_pipeline.values import as_written, json_type
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import chain_of_thought


@dataclass(frozen=True)
class Pair:
    """A question–answer pair. Text that is missing is "".

    Attributes:
      id: unique in the corpus.
      topic: the thing that it is about; pairs of different topics are about different things.
      fact_id: the fact that is asked for, and `fact`, its sentence.
      image: path or digest of the image. Equal texts are the same image.
      answer: the short answer.
      reasoning: the whole chain of thought with its final answer line; "" where the answer is all there is.
      context: the article that belongs to the question.
      language: of question and answer, as BCP 47 has it.
      image_source: where the image is from, which retention is counted by.
    """

    id: str
    question: str
    answer: str
    topic: str = ""
    fact_id: str = ""
    fact: str = ""
    image: str = ""
    reasoning: str = ""
    context: str = ""
    language: str = "en"
    split: str = ""
    image_source: str = ""

    def __post_init__(self) -> None:
        errors = []
        for name in NAMES:
            value = getattr(self, name)
            if not isinstance(value, str):
                errors.append(f"pair {self.id!r}: {name} is {json_type(value)}; wanted a text")
            elif not value.isascii() and HALF_A_CHARACTER.search(value):
                errors.append(f"pair {self.id!r}: {name} has half of a surrogate pair; rewrite that character")
        if errors:
            raise InputError(errors)

    @property
    def base_language(self) -> str:
        """The language without script and region: "th" of "th-TH"."""
        return base_of(self.language)

    @property
    def rank(self) -> tuple[int, str]:
        """Its place in the order in which duplicates give way to each other: by a hash, whatever the file says."""
        return text_hash(self.id), self.id


NAMES = tuple(field.name for field in fields(Pair))


def base_of(language: str) -> str:
    """A language without script and region: "th" of "th-TH"."""
    return language.replace("_", "-").partition("-")[0].casefold()


def text_hash(text: str) -> int:
    """64 bits that are the same on every machine and in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def from_json(entry: Mapping[str, Any], where: str) -> Pair:
    """The pair in a JSON object.

    Raises:
      InputError: no id, question or answer; another field than `Pair` has; a field that is no text. All at once.
    """
    errors = [f"{where}: no field {name!r}; a pair has {', '.join(NAMES)}" for name in entry if name not in NAMES]
    errors += [f"{where}: {name!r} is missing" for name in ("id", "question", "answer") if name not in entry]
    errors += [
        f"{where}: {name!r} is {json_type(value)}; wanted a text"
        for name, value in entry.items()
        if name in NAMES and not isinstance(value, str)
    ]
    if errors:
        raise InputError(errors)
    return Pair(**entry)


def to_json(pair: Pair) -> dict[str, str]:
    """The pair as a JSON object without the fields that are empty; `from_json` gives an equal pair."""
    values = {name: getattr(pair, name) for name in NAMES}
    return {name: value for name, value in values.items() if value or name in ("id", "question", "answer")}


def from_record(record: Record) -> Pair:
    """The last question of a conversation and its answer.

    Topic, fact, language and image source are read from the provenance; without a topic there, the part of the fact's
    id before "/" is it. An article that stands in the question too is taken out of it. Of a record with `reasoning`
    the whole last answer is the chain of thought, and what follows its last answer label the short answer.

    Raises:
      InputError: a conversation that does not end with a question and its answer, or accepted answers beside it.
    """
    provenance = record.provenance or {}
    messages = record.messages
    reply = _text(messages[-1]["content"]) if messages[-1]["role"] == "assistant" else ""
    asked = [message for message in messages if message["role"] == "user"]
    if not asked or not (reply or record.answers):
        raise InputError(f"{record.where or record.id}: has no question with an answer to it")
    question, context = _text(asked[-1]["content"]), record.context or ""
    if context and context in question:
        question = question.replace(context, "", 1).strip()
    images = images_of(record)
    image = images[-1] if images else ""
    if isinstance(image, bytes):
        image = "blake2b:" + hashlib.blake2b(image, digest_size=16).hexdigest()
    reasoning = reply if record.reasoning else ""
    answer = record.answers[0] if record.answers else (chain_of_thought.split(reasoning)[1] if reasoning else reply)
    fact_id = record.fact_id or ""
    named = {name: as_written(provenance.get(name) or "") for name in ("fact", "language", "image_source", "topic")}
    return Pair(
        id=record.id,
        question=question,
        answer=answer or reply,
        topic=named["topic"] or fact_id.partition("/")[0],
        fact_id=fact_id,
        fact=named["fact"],
        image=image,
        reasoning=reasoning,
        context=context,
        language=named["language"] or "en",
        split=record.split or "",
        image_source=named["image_source"],
    )


def _text(content: str | list[dict[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")

r"""Question, context and suffix put together into what a model is asked: the same for training and evaluation.

A template says where the question and the context of a record stand, a suffix what follows every question, such as
`"\nAnswer the question using a single word or phrase."`. The records of a training (`sources.chain`) and the questions
of an evaluation (`data_pipeline.questions`) go through `prompted`. The chat template of a model comes afterwards and is
`vlm_jax.processing.chat`'s.
"""

import dataclasses
import difflib
import string
from collections.abc import Mapping
from typing import Any

from data_pipeline.records import Record
from vlm_jax.errors import InputError

FIELDS = ("question", "context")
"""What a template may name."""
CONTEXT_FIRST = "{context}\n\n{question}"
"""The template that most programs have for a passage and a question about it and an image."""


def _pieces(template: str) -> list[tuple[str, str | None]]:
    """(text, the field that follows it, or None) of a template that is in order."""
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(template or "{question}")]


def _errors_of(template: str) -> list[str]:
    try:
        pieces = list(string.Formatter().parse(template or "{question}"))
    except ValueError as error:
        return [f"{template!r} is no template ({error}); a brace that is meant as one is written twice"]
    names = [name for _, name, _, _ in pieces if name is not None]
    errors = []
    for name in dict.fromkeys(names):
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            meant = f"did you mean {{{near[0]}}}?" if near else f"there are {', '.join(map('{{{}}}'.format, FIELDS))}"
            errors.append(f"nothing is called {{{name}}}; {meant}")
    errors += [f"names {{{name}}} {names.count(name)} times; name it once" for name in FIELDS if names.count(name) > 1]
    if "question" not in names:
        errors.append(f"{template!r} does not say where the {{question}} stands")
    errors += [
        f"writes {{{name}}} in a form of its own; write {{{name}}} alone"
        for _, name, form, conversion in pieces
        if name in FIELDS and (form or conversion)
    ]
    return errors


@dataclasses.dataclass(frozen=True)
class Prompt:
    r"""How questions are asked. Without a template and a suffix they are asked as they are, and no context is shown.

    Attributes:
      template: the words around a question, which stands at `{question}`, once; the record's context at `{context}`.
        A brace is written twice. "" for `{question}`.
      suffix: what follows the words of every turn of the user, with the blank or line break before it.

    A line break may be written as `\n`, as on a command line.

    Raises:
      InputError: a template that names something else, or not the question, or anything twice.
    """

    template: str = ""
    suffix: str = ""

    def __post_init__(self) -> None:
        for name in ("template", "suffix"):
            object.__setattr__(self, name, getattr(self, name).replace("\\n", "\n"))
        if wrong := _errors_of(self.template):
            raise InputError(wrong)

    @property
    def shows_context(self) -> bool:
        return any(name == "context" for _, name in _pieces(self.template))

    def around(self, context: str) -> tuple[str, str]:
        """What a template puts before a question and after it, without the suffix."""
        sides = {False: "", True: ""}
        after = False
        for literal, name in _pieces(self.template):
            sides[after] += literal + (context if name == "context" else "")
            after = after or name == "question"
        return sides[False], sides[True]


PLAIN = Prompt()
SETTINGS = ("template", "suffix")
"""Of a prompt, as configs and parts of a mixture have them."""


def of_settings(settings: Mapping[str, Any]) -> Prompt:
    """Of settings that `errors_of` found in order."""
    return Prompt(*(settings[name] for name in SETTINGS))


def errors_of(settings: Mapping[str, Any], place: str) -> list[str]:
    """What is wrong with those of `SETTINGS` that are there, each a line that begins with `place`."""
    errors = []
    for name in SETTINGS:
        value = settings.get(name, "")
        if not isinstance(value, str):
            errors.append(f"{place}.{name} is {value!r}; wanted a text")
        elif name == "template":
            errors += [f"{place}.template: {line}" for line in _errors_of(value.replace("\\n", "\n"))]
    return errors


def prompted(record: Record, prompt: Prompt) -> Record:
    """A record as it is asked.

    A template without `{context}` is put around every turn of the user; one that shows it around the first alone, since
    what follows is about the same text. The suffix ends every turn. Images keep their places among the words: what
    comes before a question comes before its first word.

    Raises:
      InputError: the template shows a context and the record has none.
    """
    if prompt == PLAIN:
        return record
    if prompt.shows_context and record.context is None:
        raise InputError(
            f"{record.where or record.id}: has no 'context', which the template shows; give it one, or take a template "
            "without {context}"
        )
    before, after = prompt.around(record.context or "")
    messages, first = [], True
    for message in record.messages:
        if message["role"] == "user":
            framed = first or not prompt.shows_context
            start, end = (before, after) if framed else ("", "")
            message = {**message, "content": _framed(message["content"], start, end + prompt.suffix)}
            first = False
        messages.append(message)
    return dataclasses.replace(record, messages=messages)


def _framed(content: str | list[dict[str, Any]], before: str, after: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return before + content + after
    parts = [dict(part) for part in content]
    words = [part for part in parts if part["type"] == "text"]
    if not words:
        words = [{"type": "text", "text": ""}]
        parts += words
    words[0]["text"] = before + words[0]["text"]
    words[-1]["text"] += after
    return parts if any(part["text"] for part in words) else list(content)

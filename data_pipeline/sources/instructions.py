"""Forms that give the last question and its answer in columns of their own: what other trainers' text data looks like.

ms-swift's `query`, `response` and `history`; Alpaca's `instruction`, `input` and `output`, as LLaMA-Factory reads it;
TRL's conversational `prompt` and `completion`. Images stand in `images` beside them, and take the places of `<image>`
marks or of parts `{"type": "image"}`; where there is no place at all they come before the first question, as TRL and
ms-swift have it.
"""

from collections.abc import Mapping
from typing import Any

from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, Options, other_fields, require
from data_pipeline.sources.turns import fill, images_beside, places_first, read_turns, with_system
from data_pipeline.values import as_written, json_type
from vlm_jax.errors import InputError
from vlm_jax.processing.messages import is_blank, is_empty, weights_in


class _Instructions(Form):
    conversational = True
    name = ""
    key = ""
    """Is in some entry, or the file is of another form."""

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        require(entries, (self.key,), self.name)

    def messages_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[dict[str, Any]]:
        raise NotImplementedError

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        errors: list[str] = []
        where, images = images_beside(entry, ("images", "image"), errors)
        messages = with_system(entry, self.messages_of(entry, errors), errors)
        fields = other_fields(entry, errors, compared=not self.options.training)
        messages = fill(places_first(messages, len(images)), images, where, errors)
        if errors:
            raise InputError(errors)
        return {**fields, "messages": messages}

    def asked_and_answered(
        self, question: Any, answer_key: str, entry: Mapping[str, Any], errors: list[str]
    ) -> list[dict[str, Any]]:
        """The turns of `history`, then the question and its answer."""
        messages = history_of(entry.get("history"), errors) + [{"role": "user", "content": question}]
        answer = as_written(entry.get(answer_key))
        if isinstance(answer, str) and answer.strip():
            messages.append({"role": "assistant", "content": answer})
        elif self.options.training or not is_empty(answer):
            found = "empty" if is_empty(answer) else json_type(answer)
            errors.append(f"the answer ({answer_key!r}) is {found}; it must be a text")
        return messages


class QueryResponse(_Instructions):
    """`{"query", "response", "history": [[query, response], …], "system", "images"}`."""

    name, key, history = "query_response", "query", True
    asked_in = ("query",)

    def messages_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[dict[str, Any]]:
        query = entry.get("query")
        if not isinstance(query, str):
            errors.append(f"'query' is {json_type(query)}; it must be a text")
        return self.asked_and_answered(query, "response", entry, errors)


class Alpaca(_Instructions):
    """`{"instruction", "input", "output", "history", "system", "images"}`; `input` is the instruction's next line."""

    name, key, history = "alpaca", "instruction", True
    asked_in = ("instruction", "input")

    def messages_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[dict[str, Any]]:
        texts = [entry.get(key) for key in ("instruction", "input") if not is_blank(entry.get(key))]
        if not all(isinstance(text, str) for text in texts):
            errors.append("'instruction' and 'input' must be texts")
            texts = []
        return self.asked_and_answered("\n".join(texts), "output", entry, errors)


class PromptCompletion(_Instructions):
    """`{"prompt": [messages], "completion": [messages], "images"}`. As TRL does, the completion alone is learned."""

    name, key = "prompt_completion", "prompt"

    def messages_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[dict[str, Any]]:
        messages = []
        for key in ("prompt", "completion"):
            value = entry.get(key)
            if isinstance(value, str):
                errors.append(
                    f"{key!r} is a text, which TRL trains on without a chat form; give it as a list of messages, or "
                    "name the columns query and response"
                )
            elif key == "prompt" or self.options.training or not is_empty(value):
                messages += [_not_learned(turn) if key == "prompt" else turn for turn in read_turns(value, key, errors)]
        return messages


def _not_learned(turn: dict[str, Any]) -> dict[str, Any]:
    """An answer of the prompt; what says how much of it is learned stays."""
    unchanged = turn["role"] != "assistant" or bool(weights_in(turn))
    return turn if unchanged else {**turn, "weight": 0}


def history_of(history: Any, errors: list[str]) -> list[dict[str, Any]]:
    """The turns of earlier questions and answers, `[[question, answer], …]`. All the answers are trained on."""
    if is_empty(history):
        return []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        errors.append("'history' must be a list of pairs of a question and its answer")
        return []
    return [
        {"role": role, "content": text}
        for question, answer in history
        for role, text in (("user", question), ("assistant", as_written(answer)))
    ]

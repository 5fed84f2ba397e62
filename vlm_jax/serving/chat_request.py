"""The body of a chat completion request, read: every parameter is honoured, or refused by name unless it asks for the
default.

Which parameters there are is OpenAI's API reference (chat/create); `top_k` and `repetition_penalty` are vLLM's names.
A parameter that is null is not there, whatever its name. What messages hold is read in `request_messages`; how many
tokens a prompt takes and whether its images can be read is for who has the model.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from vlm_jax.json_objects import object_of
from vlm_jax.processing import chat
from vlm_jax.serving.refusals import Refused
from vlm_jax.serving.request_messages import read_messages

MAX_STOPS = 4
MAX_STOP_LETTERS = 256
NOTES = {"user": str, "metadata": dict, "safety_identifier": str, "prompt_cache_key": str}
"""Parameters that say something about a request, and nothing about its answer."""
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"],),
    "parallel_tool_calls": (True,),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
}
"""Parameters that are known and not honoured, with the values that change nothing."""
_HALF_OF_A_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")
_MISSING = object()
_KINDS = {
    bool: "true or false",
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


@dataclasses.dataclass(frozen=True)
class ChatRequest:
    """Attributes:
    messages: as `vlm_jax` takes them; images are bytes with a name.
    max_tokens: None: not said.
    max_tokens_name: the parameter that said it.
    sampling: temperature, top_p, top_k and repetition_penalty, as far as they are said.
    seed: None: not said.
    choices: answers that are wanted (`n`).
    stop: texts that an answer ends before.
    """

    model: str
    messages: list[chat.Message]
    max_tokens: int | None
    max_tokens_name: str
    sampling: dict[str, float | int]
    seed: int | None
    choices: int
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool


def json_object(body: bytes) -> dict[str, Any]:
    """Raises Refused where it is none, by JSON's own rules: a key twice, NaN and half surrogate pairs are refused."""

    def no_number(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    try:
        request = json.loads(body.decode("utf-8"), object_pairs_hook=object_of, parse_constant=no_number)
        if _HALF_OF_A_PAIR.search(body):
            json.dumps(request, ensure_ascii=False).encode("utf-8")
    except UnicodeError:
        raise Refused("the body is not text in UTF-8, or has half a surrogate pair", code="invalid_json") from None
    except RecursionError:
        raise Refused("the body is not JSON of a request: its brackets are too deep", code="invalid_json") from None
    except ValueError as error:  # InputError, of a key that is there twice, among them
        raise Refused(f"the body is not JSON of a request: {error}", code="invalid_json") from None
    if not isinstance(request, dict):
        raise Refused("the body is not a JSON object", code="invalid_json")
    return request


def read_chat_request(body: bytes, *, most_choices: int) -> ChatRequest:
    """Raises Refused with the first parameter that cannot be."""
    fields = _Fields(json_object(body))
    stream = fields.take("stream", bool, False)
    max_tokens_name, max_tokens = _max_tokens(fields)
    request = ChatRequest(
        model=fields.take("model", str),
        messages=read_messages(fields.take("messages", list)),
        max_tokens=max_tokens,
        max_tokens_name=max_tokens_name,
        sampling=_sampling(fields),
        seed=fields.take("seed", int, None, lambda seed: -(2**63) <= seed < 2**63, "a whole number of 64 bits"),
        choices=fields.take("n", int, 1, lambda n: 1 <= n <= most_choices, f"from 1 to {most_choices} (--batch)"),
        stop=_stops(fields),
        stream=stream,
        include_usage=_include_usage(fields, stream),
    )
    _check_response_format(fields)
    for name, kind in NOTES.items():
        fields.take(name, kind, None)
    for name, defaults in DEFAULTS.items():
        value = fields.drop(name)
        if value is not None and not any(_equal(value, default) for default in defaults):
            raise Refused(f"{name} is not supported; leave it out", param=name, code="unsupported_parameter")
    fields.check_all_taken()
    return request


class _Fields:
    """Of a request, taken one by one."""

    def __init__(self, fields: Mapping[str, Any]):
        self._fields = {name: value for name, value in fields.items() if value is not None}

    def drop(self, name: str) -> Any:
        return self._fields.pop(name, None)

    def take(
        self,
        name: str,
        kind: type,
        default: Any = _MISSING,
        valid: Callable[[Any], bool] = lambda value: True,
        expected: str = "",
    ) -> Any:
        value = self._fields.pop(name, None)
        if value is None:
            if default is _MISSING:
                raise Refused(f"{name} is missing", param=name, code="missing_required_parameter")
            return default
        kinds = (int, float) if kind is float else (kind,)
        # True is a whole number to Python.
        if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
            raise Refused(f"{name} is not {_KINDS[kind]}", param=name, code="invalid_type")
        if not valid(value):
            raise Refused(f"{name} is {value!r}; wanted {expected}", param=name, code="invalid_value")
        return value

    def check_all_taken(self) -> None:
        if self._fields:
            name = next(iter(self._fields))
            shown = name if len(name) <= 100 else f"{name[:100]}…"
            raise Refused(f"the parameter {shown!r} is not known", param=shown, code="unknown_parameter")


def _equal(value: Any, default: Any) -> bool:
    return value == default and isinstance(value, bool) == isinstance(default, bool)


def _max_tokens(fields: _Fields) -> tuple[str, int | None]:
    """Under which name it is, and what it is."""
    names = ("max_tokens", "max_completion_tokens")
    found = {name: fields.take(name, int, None, lambda count: count >= 1, "1 or more") for name in names}
    values = {name: value for name, value in found.items() if value is not None}
    if len(set(values.values())) > 1:
        raise Refused("max_tokens and max_completion_tokens differ; give one of them", param="max_tokens")
    return next(iter(values.items()), ("max_tokens", None))


def _sampling(fields: _Fields) -> dict[str, float | int]:
    bounds: list[tuple[str, type, Callable[[Any], bool], str]] = [
        ("temperature", float, lambda value: 0 <= value <= 2, "a number from 0 to 2"),
        ("top_p", float, lambda value: 0 < value <= 1, "a number above 0, at most 1"),
        ("top_k", int, lambda value: -1 <= value < 2**31, "a whole number; 0 or -1: all tokens"),
        ("repetition_penalty", float, lambda value: 0 < value <= 100, "a number above 0, at most 100"),
    ]
    found = {name: fields.take(name, kind, None, valid, expected) for name, kind, valid, expected in bounds}
    chosen = {name: value for name, value in found.items() if value is not None}
    if chosen.get("top_k") == -1:  # vLLM's word for all
        chosen["top_k"] = 0
    return chosen


def _stops(fields: _Fields) -> tuple[str, ...]:
    value = fields.drop("stop")
    if value is None:
        return ()
    stops = [value] if isinstance(value, str) else value
    if not isinstance(stops, list) or not all(isinstance(one, str) and one for one in stops):
        raise Refused("stop is a text, or a list of texts, none of them empty", param="stop", code="invalid_type")
    if len(stops) > MAX_STOPS or any(len(one) > MAX_STOP_LETTERS for one in stops):
        raise Refused(
            f"stop holds at most {MAX_STOPS} texts of at most {MAX_STOP_LETTERS} letters",
            param="stop",
            code="invalid_value",
        )
    return tuple(stops)


def _include_usage(fields: _Fields, stream: bool) -> bool:
    options = fields.drop("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise Refused("stream_options is not an object", param="stream_options", code="invalid_type")
    if not stream:
        raise Refused("stream_options goes with stream, which is not true", param="stream_options")
    own = _Fields({f"stream_options.{name}": value for name, value in options.items()})
    include = own.take("stream_options.include_usage", bool, False)
    if own.take("stream_options.include_obfuscation", bool, False):
        name = "stream_options.include_obfuscation"
        raise Refused(f"{name} is not supported; leave it out", param=name, code="unsupported_parameter")
    own.check_all_taken()
    return include


def _check_response_format(fields: _Fields) -> None:
    value = fields.drop("response_format")
    if value is None or value == {"type": "text"}:
        return
    kind = value.get("type") if isinstance(value, dict) else value
    raise Refused(
        f"response_format {str(kind)[:100]!r} is not supported: answers are text",
        param="response_format",
        code="unsupported_parameter",
    )

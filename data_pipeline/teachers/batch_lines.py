"""The lines of batch jobs: requests out, answers in, and which answer belongs to which request.

The service changes the order, copies what it does not know, and has been seen to lose and to change ids. So an answer
belongs to a request when the request that the line repeats is the one that was asked; the id is only a first guess.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.teachers import http, vertex_forms
from data_pipeline.teachers.request import CallFailed, Kind, Reply, Request
from vlm_jax import locations, terminal

_CODE = re.compile(r'"code":\s*(\d+)|\b([45]\d\d)\b')
_BY_NAME = {"Bad Request": 400, "Too Many Requests": 429, "Internal": 500, "Unavailable": 503, "Deadline": 504}


@dataclass(frozen=True)
class Line:
    """A line of answers: the id and the request that it repeats, and a response or why there is none."""

    id: str
    request: Mapping[str, Any] | None
    response: Mapping[str, Any] | None
    failure: CallFailed | None = None


def line_of(key: str, request: Request, parameters: Mapping[str, Any]) -> str:
    """A request as a line: a letter before the id, since one of digits alone may come back as a number."""
    line = {"custom_id": f"r-{key}", "request": _json_of(request, parameters)}
    return json.dumps(line, ensure_ascii=False) + "\n"


def hash_of(request: Request, parameters: Mapping[str, Any]) -> str:
    return _hash(_json_of(request, parameters))


def key_of(line: Line, by_hash: Mapping[str, str]) -> str | None:
    """The key of the request that a line answers, or None.

    Args:
      by_hash: {hash of a request as it was written: its key}.
    """
    if line.request is not None:
        return by_hash.get(_hash(line.request))
    named = line.id.removeprefix("r-")
    return named if named in by_hash.values() else None


def answers_in(place: str) -> Iterator[Line]:
    """The lines of a job's answers, of however many files, one in memory at a time: images are in them.

    A line that is no JSON object, of a file that is damaged, answers nothing.
    """
    for name in locations.sizes_below(place):
        if re.search(r"predictions[^/]*\.jsonl$", name):
            with locations.open_binary(f"{place}/{name}") as file:
                for text in file:
                    line = _parsed(text)
                    if line is not None:
                        yield line


def reply_of(line: Line, kind: Kind) -> Reply:
    """The answer of a line. Raises CallFailed, as `vertex_forms.reply_of` does."""
    from google.genai import types

    try:
        response = types.GenerateContentResponse.model_validate(line.response)
    except ValueError as error:
        raise CallFailed("empty", f"no response of the known form: {terminal.line(str(error), 100)}") from None
    return vertex_forms.reply_of(response, kind)


def _parsed(text: bytes) -> Line | None:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict):
        return None
    status = str(entry.get("status") or "")
    response = entry.get("response") if isinstance(entry.get("response"), dict) else None
    request = entry.get("request") if isinstance(entry.get("request"), dict) else None
    failure = None
    if response is None or status:
        code = _CODE.search(status)
        number = int(code[1] or code[2]) if code else next((n for name, n in _BY_NAME.items() if name in status), 500)
        reason = http.reason_of(number)
        # One bad line is no reason to end the run: it is told when nothing better comes of it.
        failure = CallFailed("server error" if reason in ("bad request", "no such model") else reason, status[:300])
    return Line(str(entry.get("custom_id") or ""), request, response, failure)


def _json_of(request: Request, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The body of generateContent. Image bytes in standard base64: the client's own dump has another alphabet."""
    parts: list[dict[str, Any]] = [
        {"inlineData": {"mimeType": image.media_type, "data": base64.b64encode(image.read()).decode("ascii")}}
        for image in request.images
    ]
    if request.prompt:
        parts.append({"text": request.prompt})
    config = vertex_forms.config_of(request, parameters)
    settings = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"contents": [{"role": "user", "parts": parts}], "generationConfig": settings}


def _hash(body: Mapping[str, Any]) -> str:
    """Of a request without what importers add or leave out: keys in order, nothing that is null or empty."""
    text = json.dumps(_plain(body), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_key(key): _plain(one) for key, one in value.items() if one not in (None, {}, [])}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _key(name: str) -> str:
    """camelCase for snake_case: both are met."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)

"""Any server that speaks OpenAI's chat and embedding API: vLLM, SGLang, Ollama, llama.cpp, this package's own.

Spoken by hand over httpx, since only what is sent once is wanted: the `openai` client sends again by itself.
"""

import base64
import json
from collections.abc import Mapping
from typing import Any

from data_pipeline.teachers import http
from data_pipeline.teachers.request import CallFailed, Kind, Reply, Request, Usage
from data_pipeline.teachers.teacher import Teacher
from vlm_jax.errors import InputError

_FINISHED = {"stop": "", "length": "cut off", "content_filter": "blocked answer"}
STRUCTURED = ("json_schema", "json_object", "none")


class OpenAICompatible(Teacher):
    takes = ("text", "embedding")

    def __init__(
        self,
        *,
        model: str,
        endpoint: str,
        api_key_env: str,
        at_once: int,
        requests_per_minute: int,
        tokens_per_minute: int,
        timeout_s: float,
        temperature: float,
        max_output_tokens: int,
        seed: int,
        structured: str,
        extra: Mapping[str, Any],
    ):
        if structured not in STRUCTURED:
            raise InputError(f"a teacher's structured is {structured!r}; known are {', '.join(STRUCTURED)}")
        self.model, self.at_once, self.most_output = model, at_once, max_output_tokens
        self.requests, self.tokens = requests_per_minute, tokens_per_minute
        self._sampling = {"temperature": temperature, "max_tokens": max_output_tokens, "seed": seed}
        self._structured, self._extra = structured, dict(extra)
        http.check_address(endpoint)
        self._endpoint, self._key_env, self._timeout = endpoint.rstrip("/"), api_key_env, timeout_s
        self._made: http.Connection | None = None

    def ready(self) -> None:
        self._connected()

    def _connected(self) -> http.Connection:
        if self._made is None:
            headers = {"Authorization": f"Bearer {http.key_in(self._key_env)}"} if self._key_env else {}
            self._made = http.Connection(self._endpoint, headers, self._timeout, self.at_once)
        return self._made

    def parameters(self, kind: Kind) -> Mapping[str, Any]:
        sampling = {**self._sampling, "structured": self._structured} if kind == "text" else {}
        return {**sampling, **self._extra}

    async def send(self, request: Request) -> Reply:
        if request.kind == "embedding":
            return await self._embedded(request)
        parameters = {**self._sampling, **self._extra, **request.parameters}
        parameters["seed"] = request.seed(int(parameters["seed"]))
        if "max_output_tokens" in parameters:  # as requests call it, whoever is asked
            parameters["max_tokens"] = parameters.pop("max_output_tokens")
        body = {"model": self.model, "messages": [{"role": "user", "content": _content(request)}], **parameters}
        if request.schema is not None and self._structured == "json_schema":
            schema = {"name": request.stage or "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.schema is not None and self._structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        try:
            return _reply(await self._connected().post("/chat/completions", body))
        except CallFailed as failed:
            if (
                failed.reason != "bad request"
                or "response_format" not in failed.detail
                or "response_format" not in body
            ):
                raise
            advice = f'set "structured" of this teacher to another of {", ".join(STRUCTURED)}'
            raise CallFailed(failed.reason, f"{failed.detail}; {advice}", raw=failed.raw) from None

    async def _embedded(self, request: Request) -> Reply:
        if request.images:
            raise CallFailed("bad request", "OpenAI's embedding API takes text only; take another teacher for images")
        body = {"model": self.model, "input": [request.prompt], **self._extra, **request.parameters}
        answer = await self._connected().post("/embeddings", body)
        raw = json.dumps({key: value for key, value in answer.items() if key != "data"})
        try:
            vector = tuple(float(value) for value in answer["data"][0]["embedding"])
        except (LookupError, TypeError, ValueError):
            raise CallFailed("empty", "no embedding in the answer", raw=raw) from None
        return Reply(vector=vector, model=str(answer.get("model") or ""), usage=_usage(answer), raw=raw)

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()


def _content(request: Request) -> str | list[dict[str, Any]]:
    if not request.images:
        return request.prompt
    parts: list[dict[str, Any]] = []
    for image in request.images:
        data = base64.b64encode(image.read()).decode("ascii")
        parts.append({"type": "image_url", "image_url": {"url": f"data:{image.media_type};base64,{data}"}})
    return [*parts, {"type": "text", "text": request.prompt}]


def _usage(answer: Mapping[str, Any]) -> Usage:
    """What the server counted; what is no number is not counted."""
    thoughts = _counted(answer, "completion_tokens_details", "reasoning_tokens")
    return Usage(
        input=_counted(answer, "prompt_tokens"),
        cached=_counted(answer, "prompt_tokens_details", "cached_tokens"),
        output=max(0, _counted(answer, "completion_tokens") - thoughts),
        thoughts=thoughts,
    )


def _counted(answer: Mapping[str, Any], *names: str) -> int:
    value: Any = answer.get("usage")
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, int) and value > 0 else 0


def _reply(answer: Mapping[str, Any]) -> Reply:
    raw, usage = json.dumps(answer, ensure_ascii=False), _usage(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], Mapping):
        raise CallFailed("empty", "no choices in the answer", usage=usage, raw=raw)
    message = choices[0].get("message")
    if not isinstance(message, Mapping):
        raise CallFailed("empty", "no message in the answer", usage=usage, raw=raw)
    if message.get("refusal"):
        raise CallFailed("blocked answer", str(message["refusal"]), usage=usage, raw=raw)
    finish = choices[0].get("finish_reason")
    reason = _FINISHED.get(str(finish), "stopped for an unknown reason")
    text = message.get("content")
    said, version = text if isinstance(text, str) else "", str(answer.get("model") or "")
    reply = Reply(text=said, model=version, usage=usage, raw=raw)
    if reason:
        partial = reply if reason == "cut off" else None
        raise CallFailed(reason, f"finish_reason {finish!r}", usage=usage, raw=raw, partial=partial)
    if not said.strip():
        raise CallFailed("empty", "no text in the answer", usage=usage, raw=raw)
    return reply

"""`POST /v1/embeddings`: texts as vectors of unit length, as OpenAI's API has it (embeddings/create).

Every parameter is honoured, or refused by name. One thread computes, beside the model's.
"""

import asyncio
import base64
import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32
from starlette.responses import JSONResponse

from vlm_jax.errors import InputError
from vlm_jax.retrieval.encoder import Encoder
from vlm_jax.serving.chat_request import json_object
from vlm_jax.serving.connection import in_a_place
from vlm_jax.serving.places import Place, Places
from vlm_jax.serving.refusals import Refused, not_served

MAX_INPUTS = 2048
"""Texts of a request, as OpenAI has it."""
RETRY_SECONDS = 5
FORMATS = ("float", "base64")
_NOTES = ("user",)


@dataclasses.dataclass(frozen=True)
class EmbeddingRequest:
    model: str
    texts: list[str]
    format: str = "float"
    dimensions: int | None = None


def read_embedding_request(body: bytes) -> EmbeddingRequest:
    """Raises Refused for what is not JSON, and parameters that are missing, not known, or of another type."""
    request = {key: value for key, value in json_object(body).items() if value is not None}

    def refuse(param: str, reason: str) -> Refused:
        return Refused(f"{param} {reason}", param=param, code="invalid_value")

    for key in request:
        if key not in ("model", "input", "encoding_format", "dimensions", *_NOTES):
            raise Refused(f"{key[:100]!r} is not a known parameter", param=key[:100], code="unknown_parameter")
    model, texts = request.get("model"), request.get("input")
    if not isinstance(model, str) or not model:
        raise refuse("model", "is missing: give the name of the encoder")
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise refuse("input", "must be a text or a list of texts; lists of tokens are not read")
    if len(texts) > MAX_INPUTS:
        raise refuse("input", f"has {len(texts):,} texts; send at most {MAX_INPUTS:,} at a time")
    if "" in texts:
        raise refuse("input", f"has an empty text, number {texts.index('') + 1}")
    form, dimensions = request.get("encoding_format", "float"), request.get("dimensions")
    if form not in FORMATS:
        raise refuse("encoding_format", f"must be one of {', '.join(FORMATS)}")
    if dimensions is not None and type(dimensions) is not int:
        raise refuse("dimensions", "must be a whole number")
    return EmbeddingRequest(model, texts, form, dimensions)


class EmbeddingEndpoint:
    """An ASGI application for one path."""

    def __init__(self, encoder: Encoder, *, name: str, queue: int):
        """
        Args:
          name: of the encoder, that requests must give.
          queue: requests that may wait while one is answered.
        """
        self._encoder, self._name = encoder, name
        self.places = Places(1 + queue, lambda: RETRY_SECONDS)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope, receive, send) -> None:
        await in_a_place(self.places, scope, receive, lambda place: self._answered(place, scope, receive, send))

    async def _answered(self, place: Place, scope, receive, send) -> None:
        request = read_embedding_request(place.take_body())
        if request.model != self._name:
            raise not_served(request.model, self._name)
        if request.dimensions not in (None, self._encoder.dimension):
            raise Refused(
                f"dimensions is {request.dimensions}; vectors of {self._name} have {self._encoder.dimension} values",
                param="dimensions",
                code="invalid_value",
            )
        vectors, tokens = await asyncio.get_running_loop().run_in_executor(self._thread, self._computed(request))
        coded = _as_base64 if request.format == "base64" else _as_list
        data = [
            {"object": "embedding", "index": index, "embedding": coded(vector)} for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"object": "list", "data": data, "model": self._name, "usage": usage}
        await JSONResponse(body)(scope, receive, send)

    def _computed(self, request: EmbeddingRequest) -> Callable[[], tuple[Float32[np.ndarray, "n d"], int]]:
        def compute():
            try:
                counts = self._encoder.token_counts(request.texts)
                return self._encoder.encode_texts(request.texts), sum(counts)
            except InputError as error:  # longer than the model reads
                raise Refused("; ".join(error.lines), param="input", code="invalid_value") from None

        return compute


def _as_list(vector: Float32[np.ndarray, " d"]) -> list[float]:
    return vector.tolist()


def _as_base64(vector: Float32[np.ndarray, " d"]) -> Any:
    """Little-endian float32, as OpenAI's client reads it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")

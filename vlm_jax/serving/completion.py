"""The objects that answer a chat completion request, as OpenAI writes them (chat/object and chat/streaming)."""

import dataclasses
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from vlm_jax.serving.worker import Piece


def event(data: dict[str, Any] | str) -> bytes:
    """A server-sent event."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


@dataclasses.dataclass
class Completion:
    """One request's, as its pieces come.

    Attributes:
      prompt_tokens: of the conversation as the model reads it, with the marks of the answer's beginning.
    """

    model: str
    fingerprint: str
    prompt_tokens: int
    choices: int
    include_usage: bool = False
    completion_tokens: int = 0
    unfinished: int = 0

    def __post_init__(self):
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())
        self._texts = [""] * self.choices
        self._reasons: list[str | None] = [None] * self.choices
        self.unfinished = self.choices

    def take(self, piece: Piece) -> None:
        self._texts[piece.choice] += piece.text
        if piece.finish_reason is not None:
            self._reasons[piece.choice] = piece.finish_reason
            self.completion_tokens += piece.tokens
            self.unfinished -= 1

    def whole(self) -> dict[str, Any]:
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": reason,
            }
            for index, (text, reason) in enumerate(zip(self._texts, self._reasons, strict=True))
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self._usage()}

    def beginning(self) -> bytes:
        """Events that open each choice."""
        return b"".join(self._chunk(index, {"role": "assistant", "content": ""}) for index in range(self.choices))

    def chunks(self, piece: Piece) -> bytes:
        """Events of a piece."""
        text_chunk = self._chunk(piece.choice, {"content": piece.text}) if piece.text else b""
        if piece.finish_reason is None:
            return text_chunk
        return text_chunk + self._chunk(piece.choice, {}, piece.finish_reason)

    def end(self) -> bytes:
        """Events that end the stream."""
        usage = b""
        if self.include_usage:
            usage = event({**self._head("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        return usage + event("[DONE]")

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choices: Sequence[dict] = [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]
        more = {"usage": None} if self.include_usage else {}
        return event({**self._head("chat.completion.chunk"), "choices": choices, **more})

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }

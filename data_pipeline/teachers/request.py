"""What a teacher is asked and what it answers, whichever teacher it is.

A request is known by its key: a digest of everything that decides the answer. Who sends it is a teacher's, when and how
often is `asking`'s, where answers are kept is `store`'s.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["text", "image", "embedding"]
"""What is wanted: text (about images too, or an object of a schema), an image, or a vector."""


@dataclass(frozen=True)
class ImageFile:
    """An image that a request shows: named by the SHA-256 of its bytes, so that it may lie anywhere."""

    digest: str
    path: Path
    media_type: str = "image/jpeg"

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True)
class Request:
    """One question to a teacher.

    Attributes:
      prompt: the whole text, rendered.
      images: shown before the text, in this order.
      schema: JSON schema of the object that is wanted, or None for free text.
      parameters: of sampling and of images, beside those of the teacher's settings, which they take the place of.
      partial: an answer that reached its most tokens is taken as it is; else it is no answer.
      sample: number of the sample, where the same is asked several times.
      attempt: how many answers to it could not be used before, for the seed alone.
      stage: who asks, for messages and sums.
      subject: what the prompt was rendered from. The built-in teacher answers from it; neither it nor `stage` is part
        of the key, since others are sent the prompt alone.
    """

    kind: Kind
    prompt: str
    images: tuple[ImageFile, ...] = ()
    _: KW_ONLY
    schema: Mapping[str, Any] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False
    sample: int = 0
    attempt: int = 0
    stage: str = ""
    subject: Mapping[str, Any] = field(default_factory=dict)

    def key(self, model: str, parameters: Mapping[str, Any]) -> str:
        """The SHA-256, in hexadecimal, of what decides the answer.

        Args:
          model: who answers, as `Teacher.model`.
          parameters: of the teacher's settings.
        """
        decides = {
            "model": model,
            "kind": self.kind,
            "prompt": self.prompt,
            "images": [image.digest for image in self.images],
            "schema": self.schema,
            "parameters": {**parameters, **self.parameters},
            "sample": self.sample,
            **({"partial": True} if self.partial else {}),
        }
        text = json.dumps(decides, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def seed(self, chosen: int) -> int:
        """What is drawn by for this request, from 0 up to 2³¹: another for each prompt, image, sample and attempt.

        With one for all, a model that draws from much the same words for every image draws the same ones.

        Args:
          chosen: the seed in the teacher's settings.
        """
        decides = [chosen, self.sample, self.attempt, self.prompt, [image.digest for image in self.images]]
        text = json.dumps(decides, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.sha256(text).digest()[:4], "big") >> 1


TOKENS_AN_IMAGE = 1120
"""Of an image at 1K, as current models count one; an image of a model that counts none is taken for so many."""


@dataclass(frozen=True)
class Usage:
    """Tokens that are paid for. `input` includes `cached`; `output` includes neither `thoughts` nor `image`."""

    input: int = 0
    cached: int = 0
    output: int = 0
    thoughts: int = 0
    image: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def tokens(self) -> int:
        return self.input + self.output + self.thoughts + self.image


@dataclass(frozen=True)
class Reply:
    """What a teacher answered: one of text, image (an encoded file) and vector.

    Attributes:
      model: the version that answered, as it calls itself.
      raw: the response as it came, JSON; the bytes of images are left out of it.
    """

    text: str | None = None
    image: bytes | None = None
    vector: tuple[float, ...] | None = None
    model: str = ""
    usage: Usage = Usage()
    raw: str = ""


class CallFailed(Exception):
    """A call that brought no answer that can be used.

    Attributes:
      reason: one of REASONS, by which failures are counted.
      detail: what was said, for the person at the keyboard; no credentials are in it.
      after: seconds that the server asks to wait.
      usage: what was paid for all the same, and `raw`, what came.
      partial: of an answer that was cut off, what there is of it.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        *,
        after: float | None = None,
        usage: Usage = Usage(),
        raw: str = "",
        partial: Reply | None = None,
    ):
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail, self.after, self.usage, self.raw = reason, detail, after, usage, raw
        self.partial = partial


@dataclass(frozen=True)
class Failure:
    """A request that has no answer and is not sent again: its reason is one of FINAL."""

    reason: str
    detail: str = ""


PASSING = (
    "rate limited",
    "server error",
    "no connection",
    "connection dropped",
    "timed out",
    "half a response",
)
"""Reasons that may be gone the next time: the same request is sent again."""
UNUSABLE = ("empty", "not what was asked for")
"""The model answered, and may answer better: asked again a few times, then final."""
FINAL = ("blocked prompt", "blocked answer", "cut off", "no image", "cannot be asked", "stopped for an unknown reason")
"""Asking again would bring the same, and is paid for."""
STOPPING = ("no credentials", "no permission", "no such model", "bad request", "quota used up")
"""Nothing that follows would fare better: the run ends with this line."""
REASONS = (*PASSING, *UNUSABLE, *FINAL, *STOPPING)

"""What is answered where a request cannot be: OpenAI's error object, with the status that its clients expect."""

from collections.abc import Mapping
from typing import Any

INVALID = "invalid_request_error"


class Refused(Exception):
    """A request that is not answered.

    Attributes:
      status: of HTTP.
      param: the field of the request that is to be changed.
      code: a word for programs.
      kind: OpenAI's `type` of errors.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        kind: str = INVALID,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.kind = message, status, param, code, kind
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error}


def not_served(model: str, served: str) -> Refused:
    """Of a request for another model."""
    return Refused(
        f"the model {model[:100]!r} is not served here; {served!r} is",
        status=404,
        param="model",
        code="model_not_found",
    )


def failed(message: str) -> Refused:
    """The server's own failure."""
    return Refused(message, status=500, code="internal_error", kind="server_error")


def closing() -> Refused:
    return Refused("the server is being stopped", status=503, code="shutting_down", kind="server_error")

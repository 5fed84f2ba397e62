"""One HTTP call, sent once, and what goes wrong with it as a reason of `request.REASONS`."""

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from data_pipeline.teachers.request import CallFailed
from vlm_jax import terminal
from vlm_jax.errors import InputError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}")
_BY_STATUS = {
    401: "no credentials",
    403: "no permission",
    404: "no such model",
    408: "timed out",
    409: "server error",
    425: "server error",
    429: "rate limited",
}


def reason_of(status: int) -> str:
    return _BY_STATUS.get(status, "server error" if status >= 500 else "bad request")


def seconds_of(value: str | None) -> float | None:
    """A Retry-After header, which is a number of seconds or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def httpx_package() -> Any:
    try:
        import httpx
    except ImportError:
        raise InputError("teachers on the network need httpx; pip install 'vlm-jax[corpus]'") from None
    return httpx


def failed_in(error: Exception) -> CallFailed | None:
    """What an error of httpx means; None for an error that is none of its own."""
    httpx = httpx_package()
    if isinstance(error, httpx.ConnectError) and "Name or service not known" in str(error):
        return CallFailed("bad request", f"no such host: {_host(error)}")
    if isinstance(error, httpx.ConnectError):
        return CallFailed("no connection", f"nothing answers at {_address(error)}; is the server running?")
    if isinstance(error, httpx.TimeoutException):
        return CallFailed("timed out", type(error).__name__)
    if isinstance(error, httpx.TransportError):
        return CallFailed("connection dropped", f"{type(error).__name__}: {error}")
    return None


def key_in(name: str) -> str:
    """The key in an environment variable.

    Raises:
      InputError: it is not set, or what is given is no name of one. It is not shown then: it may be the key itself.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "a teacher's api_key_env is no name of an environment variable; put the key into one, name that"
        )
    value = os.environ.get(name, "").strip()
    if not value:
        raise InputError(f"the environment variable {name} is not set, which is to have the key by api_key_env")
    return checked_key(value, name)


def checked_key(value: str, name: str) -> str:
    """A key that can stand in a header. Raises InputError, which does not show it: what is sent would be shown."""
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise InputError(f"the environment variable {name} holds no key: a key is ASCII letters, in one line")
    return value


def check_address(address: str) -> None:
    """Raises InputError where an address is none of a server."""
    if not address.startswith(("http://", "https://")):
        raise InputError(f"a teacher's endpoint is {address!r}; wanted an address such as http://127.0.0.1:8000/v1")


class Connection:
    """A server that takes and gives JSON. Redirects are not followed: the key would go along."""

    def __init__(self, address: str, headers: Mapping[str, str], timeout_s: float, at_once: int):
        check_address(address)
        self.address, self._headers, self._timeout, self._at_once = address, dict(headers), timeout_s, at_once
        self._httpx = httpx_package()
        self._client: Any = None

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one POST.

        Raises:
          CallFailed: by status, by what broke, or because it is no JSON object.
        """
        if self._client is None:
            limits = self._httpx.Limits(max_connections=self._at_once, max_keepalive_connections=self._at_once)
            self._client = self._httpx.AsyncClient(
                timeout=self._httpx.Timeout(self._timeout, pool=None), limits=limits, headers=self._headers
            )
        try:
            response = await self._client.post(self.address + path, json=body)
        except Exception as error:
            failed = failed_in(error)
            if failed is None:
                raise
            raise failed from None
        if response.status_code != 200:
            after = seconds_of(response.headers.get("Retry-After"))
            raise CallFailed(
                reason_of(response.status_code),
                self._hidden(f"{response.status_code} {_said(response.text)}"),
                after=after,
            )
        try:
            answer = json.loads(response.content)
        except (ValueError, RecursionError):
            raise CallFailed("half a response", f"no JSON: {terminal.line(response.text, 80)}") from None
        if not isinstance(answer, dict):
            raise CallFailed("half a response", "the answer is no JSON object")
        return answer

    def _hidden(self, text: str) -> str:
        """What a server said, without the key, which some repeat."""
        for value in self._headers.values():
            text = text.replace(value.rpartition(" ")[2], "…")
        return text

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None


def _said(text: str) -> str:
    """What an error's body says, in a line."""
    try:
        error = json.loads(text)["error"]
        return terminal.line(error["message"] if isinstance(error, dict) else error, 300)
    except (ValueError, LookupError, TypeError):
        return terminal.line(text, 200)


def _address(error: Exception) -> str:
    request = getattr(error, "_request", None)
    return f"{request.url.scheme}://{request.url.netloc.decode()}" if request is not None else "its address"


def _host(error: Exception) -> str:
    request = getattr(error, "_request", None)
    return request.url.host if request is not None else "?"

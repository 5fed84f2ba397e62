"""Who may ask: looked at before a request is read, whatever it asks for.

A page in a browser can send requests to programs of the person's own machine. Under a name of its own that it has
resolve to 127.0.0.1 (DNS rebinding) its Host tells; from another site its Origin does.
"""

import hmac
import ipaddress
import os
from urllib.parse import urlsplit

from vlm_jax.errors import InputError
from vlm_jax.serving.refusals import Refused

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")
OPEN_PATHS = ("/health",)
"""That are told without a token."""


def is_loopback(host: str) -> bool:
    """Whether a server that listens there is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(variable: str | None) -> str | None:
    """The token in an environment variable; None where none is named.

    Raises:
      InputError: it is not set, or holds what no header can.
    """
    if variable is None:
        return None
    token = os.environ.get(variable, "")
    if not token:
        raise InputError(f"--token_env={variable}: the environment variable {variable} is not set, or empty")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(f"--token_env={variable}: a token is of letters, digits and signs, without blanks")
    return token


class Access:
    """An ASGI application that hands on what may be asked; raises Refused for all else."""

    def __init__(self, app, *, host: str, token: str | None):
        """
        Args:
          host: where the server listens. On a loopback address, requests must be addressed to it.
          token: that requests must bear; None: none.
        """
        self._app = app
        self._names = {*LOOPBACK_NAMES, host} if is_loopback(host) else None
        self._token = None if token is None else token.encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "http":
            headers: dict[bytes, list[bytes]] = {}
            for name, value in scope["headers"]:
                headers.setdefault(name.lower(), []).append(value)
            self._check(scope["path"], headers)
        await self._app(scope, receive, send)

    def _check(self, path: str, headers: dict[bytes, list[bytes]]) -> None:
        host = headers.get(b"host", [])
        if self._names is not None and (len(host) != 1 or _name(f"//{host[0].decode('latin-1')}") not in self._names):
            raise Refused(
                "the Host header names another machine: address this server as localhost or 127.0.0.1",
                status=403,
                code="wrong_host",
            )
        origins = [origin.decode("latin-1").lower() for origin in headers.get(b"origin", [])]
        own = [f"{scheme}://{name.decode('latin-1').lower()}" for scheme in ("http", "https") for name in host]
        sites = headers.get(b"sec-fetch-site", [])
        if any(one not in own for one in origins) or any(site not in (b"same-origin", b"none") for site in sites):
            raise Refused("requests of pages of other sites are not answered", status=403, code="wrong_origin")
        if self._token is not None and path not in OPEN_PATHS and not self._bears_token(headers):
            raise Refused(
                "the token is missing or wrong: send Authorization: Bearer TOKEN (api_key of OpenAI's client)",
                status=401,
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _bears_token(self, headers: dict[bytes, list[bytes]]) -> bool:
        values = headers.get(b"authorization", [])
        kind, _, token = values[0].partition(b" ") if len(values) == 1 else (b"", b"", b"")
        assert self._token is not None
        return hmac.compare_digest(token.strip(), self._token) and kind.lower() == b"bearer"


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None

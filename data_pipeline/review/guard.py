"""What every request and every answer of the review page must be, whatever it is about.

The server listens on this machine only; what is left is other pages in the reviewer's browser, and what models wrote.
A foreign page can send requests here: so the host must be this machine's name (a foreign name that resolves to it is
refused), and whatever changes something must come from the page itself and be JSON, which forms cannot send. What
models wrote is never run: no script, style or image is taken from anywhere but here, and scripts cannot make markup
of texts.
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlm_jax.errors import InputError
from vlm_jax.json_objects import object_of

HOSTS = ("127.0.0.1", "localhost")
MOST_BYTES = 256 << 10
"""Of a request's body: an article of 100,000 Thai letters would pass."""
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


def guarded(app: ASGIApp) -> ASGIApp:
    """The app behind all checks that need no body."""
    return _Guard(TrustedHostMiddleware(app, allowed_hosts=HOSTS, www_redirect=False))


async def json_body(request: Request) -> Mapping[str, Any]:
    """The body of a request that changes something.

    Raises:
      HTTPException: 403 from another origin or without one, 415 not JSON, 413 too large, 400 no JSON object.
    """
    # The host was checked; its port is this server's, or that of a tunnel to it.
    if request.headers.getlist("origin") != [f"http://{request.headers['host']}"]:
        raise HTTPException(403, "requests that change something come from the page itself (Origin)")
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    if kind.strip().lower() != "application/json" or parameters.strip().lower() not in ("", "charset=utf-8"):
        raise HTTPException(415, "the body must be application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"the body has more than {MOST_BYTES:,} bytes")
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=object_of)
    except InputError as error:
        raise HTTPException(400, str(error)) from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON") from None
    if not isinstance(value, Mapping):
        raise HTTPException(400, "the body must be a JSON object")
    return value


class _Guard:
    """Sets the headers of every answer, and refuses hosts given twice and what other sites ask for."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if len(headers.getlist("host")) > 1:
            await PlainTextResponse("one Host header is taken", 400)(scope, receive, send_with_headers)
        elif headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and scope["path"] != "/":
            # Browsers say which page asks. One of another site may lead here, and gets nothing else.
            await PlainTextResponse("asked by another site", 403)(scope, receive, send_with_headers)
        else:
            await self.app(scope, receive, send_with_headers)

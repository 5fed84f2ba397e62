"""How many requests, and how many bytes of theirs, a server takes in at one time. For one event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterator, Mapping

from vlm_jax.serving.refusals import Refused

MAX_BODY = 32 << 20
"""Bytes of a request."""
MAX_BODIES = 256 << 20
"""Bytes of all requests that are being read or wait for their turn."""
BODY_SECONDS = 60.0
"""That a request may take to arrive."""


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises Refused for a body that is not JSON as it is."""
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused("send JSON: Content-Type: application/json", status=415, code="wrong_content_type")
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise Refused(
            f"the body is encoded ({encoding[:40]!r}); send it as it is, without Content-Encoding",
            status=415,
            code="wrong_content_encoding",
        )


class Places:
    def __init__(self, most: int, retry_after: Callable[[], int]):
        """
        Args:
          most: requests that are in the house at one time.
          retry_after: seconds until one that finds it full may come again.
        """
        self._most, self._retry_after = most, retry_after
        self.requests = self.bytes = 0

    @contextlib.contextmanager
    def place(self) -> Iterator["Place"]:
        """Raises Refused where all are taken."""
        if self.requests >= self._most:
            raise self.full(f"{self._most} requests wait already")
        self.requests += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.requests -= 1
            place.free()

    def full(self, reason: str) -> Refused:
        seconds = self._retry_after()
        return Refused(
            f"{reason}; try again in {seconds} s",
            status=429,
            code="rate_limit_exceeded",
            kind="requests",
            headers={"Retry-After": str(seconds)},
        )


class Place:
    """Of one request."""

    def __init__(self, places: Places):
        self._places, self._bytes, self._body = places, 0, bytearray()

    async def read(self, announced: str | None, chunks: AsyncIterable[bytes]) -> None:
        """Takes in the body, which counts until `free`.

        Args:
          announced: its Content-Length, if it has one.
        """
        if announced is not None and announced.isdecimal() and int(announced[:19]) > MAX_BODY:
            raise _too_large()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in chunks:
                    if len(self._body) + len(chunk) > MAX_BODY:
                        raise _too_large()
                    if self._places.bytes + len(chunk) > MAX_BODIES:
                        raise self._places.full("requests that wait hold all the memory there is for them")
                    self._places.bytes += len(chunk)
                    self._bytes += len(chunk)
                    self._body += chunk
        except TimeoutError:
            raise Refused(
                f"the request did not arrive within {BODY_SECONDS:.0f} s", status=408, code="timeout"
            ) from None

    def take_body(self) -> bytes:
        """What was read; it is not kept here."""
        body, self._body = self._body, bytearray()
        return bytes(body)

    def free(self) -> None:
        """Nothing of the body is held any more."""
        self._places.bytes -= self._bytes
        self._bytes = 0


def _too_large() -> Refused:
    return Refused(
        f"the request is larger than {MAX_BODY >> 20} MiB: send fewer or smaller images",
        status=413,
        code="request_too_large",
    )

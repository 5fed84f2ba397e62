"""How many requests may be on their way, and how many a minute: as many as the server takes, and no more.

The number at once grows while answers come and is halved where the server says that it is too much, as congestion on a
network is met. Limits a minute are the account's, and are kept over any sixty seconds.
"""

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator, Callable

_MINUTE = 60.0
_AT_FIRST = 4
_HALVED_ONCE = 2.0  # seconds in which one crowd of refusals counts as one


class Limits:
    """A gate that every call of a teacher passes. One event loop uses it.

    Args:
      at_once: the most requests on their way.
      requests, tokens: a minute; 0 for no limit.
      clock: seconds, ever growing.
    """

    def __init__(
        self, *, at_once: int, requests: int = 0, tokens: int = 0, clock: Callable[[], float] = time.monotonic
    ):
        self.most, self.requests, self.tokens, self.clock = at_once, requests, tokens, clock
        self.allowed = float(min(_AT_FIRST, at_once))
        self.running = 0
        self._paused_until = self._halved_at = float("-inf")
        self._sent: collections.deque[list[float]] = collections.deque()  # [when, tokens], of the last minute
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def place(self, tokens: int) -> AsyncIterator[list[float]]:
        """Waits until a call may be sent, and counts it while the block runs.

        Args:
          tokens: what it is expected to take. Yields [when, tokens], whose second is set to what it took.
        """
        while (wait := self._wait(tokens)) > 0:
            self._changed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), wait)
        entry = [self.clock(), float(tokens)]
        self._sent.append(entry)
        self.running += 1
        try:
            yield entry
        finally:
            self.running -= 1
            self._changed.set()

    def went_well(self) -> None:
        """An answer came: about one more at once for each round of them."""
        self.allowed = min(self.most, self.allowed + 1 / self.allowed)

    def too_much(self, after: float | None) -> None:
        """The server refused for load; nothing is sent for `after` seconds where it says so."""
        now = self.clock()
        if now - self._halved_at > _HALVED_ONCE:
            self.allowed = max(1.0, self.allowed / 2)
            self._halved_at = now
        if after is not None:
            self._paused_until = max(self._paused_until, now + after)

    def _wait(self, tokens: int) -> float:
        """Seconds until it may be worth asking again; 0 where the call may go."""
        now = self.clock()
        if now < self._paused_until:
            return self._paused_until - now
        if self.running >= int(self.allowed):
            return _MINUTE  # a call that ends wakes all
        while self._sent and self._sent[0][0] <= now - _MINUTE:
            self._sent.popleft()
        over_requests = self.requests and len(self._sent) >= self.requests
        # A call that takes more than a minute's tokens by itself goes when nothing else went.
        sent = sum(entry[1] for entry in self._sent)
        over_tokens = self.tokens and self._sent and sent + tokens > self.tokens
        return self._sent[0][0] + _MINUTE - now if over_requests or over_tokens else 0.0

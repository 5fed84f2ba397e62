"""Sends requests until each is answered: the one retry loop, for all teachers.

The clients' own retries are not used: they ignore Retry-After, and some send a request again that may have been paid
for. What is an answer, and what fails in which way, is each teacher's to say (`request.REASONS`).
"""

import asyncio
import contextlib
import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_pipeline.teachers import prices, request
from data_pipeline.teachers.limits import Limits
from data_pipeline.teachers.request import CallFailed, Reply, Request
from data_pipeline.teachers.teacher import Teacher
from vlm_jax import terminal
from vlm_jax.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.teachers.asking import Asker

TRIES = 3
"""Before a server that has not answered at all in this run is given up."""
ATTEMPTS = 8
"""Of one request, where the server fails."""
USES = 3
"""Of one request, where the model's answer cannot be used."""
LONGEST_WAIT = 60.0
"""Seconds between two attempts, where the server does not say how long."""
QUOTA_AFTER = 600.0
"""A server that asks to wait longer has no quota left today."""
IN_A_ROW = 25
"""Calls that failed one after the other for the server's sake, after the last answer: it is down."""

Check = Callable[[Request, Reply], None]
"""Raises CallFailed where an answer is not what was asked for."""


class Stopped(Exception):
    """The run ends before all is asked, by Ctrl-C; what was answered is kept."""


@dataclass
class Progress:
    """Of the requests of a stage that were not in the store, how many are answered, and what all calls cost so far."""

    stage: str
    total: int
    done: int = 0
    spent: float = 0.0


class Sender:
    """The requests of one call of `Asker.ask`."""

    def __init__(self, asker: "Asker", teacher: Teacher, check: Check | None, progress: Progress, limits: Limits):
        self.asker, self.teacher, self.check, self.progress, self.limits = asker, teacher, check, progress, limits
        self.price = asker.prices.get(teacher.model, prices.FREE)
        self.stopped: Stopped | InputError | None = None
        self.unanswered: Counter[str] = Counter()
        self._in_a_row = self._refused = 0
        self._announced = False
        self._reserved: dict[int, float] = {}  # dollars that calls on their way may cost
        self._numbers = itertools.count()
        self._returned = asyncio.Event()
        progress.spent = asker.store.spent()

    def stop(self, why: Stopped | InputError) -> None:
        """Nothing more is sent; what is on its way is waited for, since it is paid for."""
        if self.stopped is None:
            self.stopped = why
            if self.limits.running and isinstance(why, Stopped):
                terminal.say(f"waiting for {self.limits.running} answers on their way; Ctrl-C again drops them")

    async def send_all(self, missing: dict[str, Request]) -> None:
        requests = iter(missing.items())
        await asyncio.gather(*(self._work(requests) for _ in range(min(self.teacher.at_once, len(missing)))))

    async def _work(self, requests: Iterator[tuple[str, Request]]) -> None:
        for key, one in requests:
            if self.stopped is not None:
                return
            try:
                await self._answer(key, one)
            except (Stopped, InputError) as error:
                self.stop(error)

    async def _answer(self, key: str, one: Request) -> None:
        """Sends a request until it is answered or has failed for good, or its attempts are used up."""
        passing = unusable = 0
        while self.stopped is None:
            final = self._final(unusable)
            failed = await self._send(key, one, final)
            if failed is None or failed.reason in final:
                self._in_a_row = 0
                self._refused += failed is not None and failed.reason == "bad request"
                self.progress.done += 1
                self.asker.progress(self.progress)
                return
            if failed.reason in request.STOPPING:
                raise InputError(f"{self.teacher.model}: {terminal.line(str(failed))}")
            if failed.reason in request.UNUSABLE:
                unusable += 1
                one = dataclasses.replace(one, attempt=unusable)  # another is drawn
                continue
            passing += 1
            self._in_a_row += 1
            if failed.reason == "no connection" and passing >= TRIES and self.teacher.model not in self.asker.answered:
                raise InputError(f"{self.teacher.model}: {terminal.line(failed.detail)}")
            if self._in_a_row >= IN_A_ROW * self.teacher.at_once:
                raise InputError(
                    f"{self.teacher.model}: does not answer ({terminal.line(str(failed))}); try again later"
                )
            if passing >= ATTEMPTS:
                self.unanswered[failed.reason] += 1
                return
            await self._pause(failed, passing)

    def _final(self, unusable: int) -> tuple[str, ...]:
        """Reasons after which a request whose answer could not be used so often before is not sent again."""
        final = request.FINAL if unusable < USES - 1 else (*request.FINAL, *request.UNUSABLE)
        # One request that is refused among others that are answered: it is at fault, not the settings.
        return (*final, "bad request") if self.progress.done > self._refused else final

    async def _send(self, key: str, one: Request, final: tuple[str, ...]) -> CallFailed | None:
        """One call. What came is in the store when this returns; None where it is an answer."""
        expected = prices.estimated(one, self.teacher.most_output)
        async with self.limits.place(expected.tokens) as counted:
            if self.stopped is not None:
                raise self.stopped
            async with self._reserving(self.price.of(expected)):
                outcome = await self._outcome(one)
                cost = self.price.of(outcome.usage)
                self.progress.spent += cost
            counted[1] = outcome.usage.tokens or counted[1]
            store, model = self.asker.store, self.teacher.model
            if isinstance(outcome, Reply):
                self.asker.answered.add(model)
                self.limits.went_well()
                store.keep(key, one, model, outcome, cost=cost)
                return None
            self.asker.failures[outcome.reason] += 1
            keep = store.keep if outcome.reason in final else store.note_call
            keep(key, one, model, outcome, cost=cost)
            return outcome

    async def _outcome(self, one: Request) -> Reply | CallFailed:
        try:
            reply = await self.teacher.send(one)
        except CallFailed as failed:
            if not one.partial or failed.partial is None:
                return failed
            reply = failed.partial
        try:
            if self.check is not None:
                self.check(one, reply)
        except CallFailed as failed:  # paid for as well
            return CallFailed(failed.reason, failed.detail, usage=reply.usage, raw=reply.raw)
        return reply

    @contextlib.asynccontextmanager
    async def _reserving(self, most: float) -> AsyncIterator[None]:
        """Counts the most that a call may cost while it is on its way, so that `max_cost` is never passed.

        While others are on their way, which will cost less than they may, it waits for them.
        """
        limit = self.asker.max_cost
        while limit is not None and self.progress.spent + sum(self._reserved.values()) + most > limit:
            if not self._reserved:
                raise prices.reached(self.progress.spent, most, limit)
            self._returned.clear()
            await self._returned.wait()
            if self.stopped is not None:
                raise self.stopped
        number = next(self._numbers)
        self._reserved[number] = most
        try:
            yield
        finally:
            del self._reserved[number]
            self._returned.set()

    async def _pause(self, failed: CallFailed, attempt: int) -> None:
        """Waits as long as the server asks, else longer each time, by chance so that not all come back at once."""
        if not self._announced:
            self._announced = True
            terminal.say(f"{self.progress.stage}: {self.teacher.model}: {terminal.line(str(failed))}; asked again")
        if failed.after is not None and failed.after > QUOTA_AFTER:
            raise InputError(
                f"{self.teacher.model}: asks to wait {failed.after:,.0f} s ({terminal.line(failed.detail)}): the quota "
                "is used up; the same command goes on from here"
            )
        if failed.reason in ("rate limited", "server error"):
            self.limits.too_much(failed.after)
        drawn = random.uniform(0.5, 1.0) * min(LONGEST_WAIT, 0.5 * 2.0**attempt)
        await self.asker.wait(drawn if failed.after is None else failed.after)

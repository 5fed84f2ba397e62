"""Requests to answers: from the store where they are known, else from the teacher.

An answer is in the store before it is counted, so a process may be killed at any time; what it then has on its way is
all that is paid for twice. How a request is sent until it is answered is `sending`'s.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from data_pipeline.teachers.batches import Batches
from data_pipeline.teachers.limits import Limits
from data_pipeline.teachers.prices import Price
from data_pipeline.teachers.request import Failure, ImageFile, Reply, Request
from data_pipeline.teachers.sending import Check, Progress, Sender, Stopped
from data_pipeline.teachers.store import Store
from data_pipeline.teachers.teacher import Teacher
from vlm_jax import stop_signals
from vlm_jax.errors import InputError

__all__ = ["Asker", "Stopped", "Unanswered"]


class Unanswered(InputError):
    """A teacher that answers had no answer to some requests."""


@contextlib.contextmanager
def _no_loop_around() -> Iterator[None]:
    """Lets an event loop run also in a notebook, whose cells run in one: that waits, as for anything that a cell does.

    In this thread, to which SQLite and Ctrl-C belong.
    """
    around = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(around)


@dataclass
class Asker:
    """Asks teachers on behalf of the stages of a run.

    Attributes:
      prices: {model: price}; a model that is not in it is free.
      max_cost: dollars that all calls of the run together stay below, or None. Calls that are on their way count with
        the most that they may come to.
      progress: told after every answer.
      seconds, wait: what time is measured by, and how it is waited for; tests have their own.
    """

    store: Store
    prices: dict[str, Price] = field(default_factory=dict)
    max_cost: float | None = None
    progress: Callable[[Progress], None] = lambda progress: None
    seconds: Callable[[], float] = time.monotonic
    wait: Callable[[float], Awaitable] = asyncio.sleep
    failures: Counter = field(default_factory=Counter)
    """Of this process, by reason, those after which a request was sent again included."""
    answered: set[str] = field(default_factory=set)
    """Models that have answered at all, in this process."""

    def __post_init__(self) -> None:
        self._runner = asyncio.Runner()
        self._limits: dict[int, tuple[Teacher, Limits]] = {}

    def close(self) -> None:
        self.rest()
        with _no_loop_around():
            self._runner.close()

    def rest(self, *others: Teacher) -> None:
        """Has all teachers give back what they hold, memory of this machine included, until they are asked again; also
        those whose answers were all in the store, as the name of a model may be that of its weights.

        Args:
          others: that were not asked yet.
        """
        for teacher in (*(teacher for teacher, _ in self._limits.values()), *others):
            with _no_loop_around():
                self._runner.run(teacher.close())

    def __enter__(self) -> "Asker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def keys(self, teacher: Teacher, requests: Sequence[Request]) -> list[str]:
        return [one.key(teacher.model, teacher.parameters(one.kind)) for one in requests]

    def missing(self, teacher: Teacher, requests: Sequence[Request]) -> dict[str, Request]:
        """{key: request} of those that have no answer yet, each once."""
        keys = self.keys(teacher, requests)
        known = self.store.known(keys)
        return {key: one for key, one in zip(keys, requests, strict=True) if key not in known}

    def ask(self, teacher: Teacher, requests: Sequence[Request], check: Check | None = None) -> list[Reply | Failure]:
        """The answer to every request, in their order. Equal ones are asked once.

        Args:
          check: of answers that come; an answer in the store passed it when it came.

        Raises:
          Unanswered: some requests have no answer after all attempts: how many, by reason.
          InputError: the teacher cannot be asked, or `max_cost` is reached. The same call goes on from there.
          Stopped: Ctrl-C.
        """
        self._limits_of(teacher)  # by which it is known, and closed in the end
        if missing := self.missing(teacher, requests):
            with _no_loop_around():
                self._runner.run(self._send(teacher, missing, check, Progress(requests[0].stage, len(missing))))
        keys = self.keys(teacher, requests)
        found = self.store.outcomes(keys)
        return [found[key] for key in keys]

    def image_of(self, teacher: Teacher, one: Request) -> ImageFile | None:
        """The image that answers a request, once it was asked."""
        return self.store.image_file(self.keys(teacher, [one])[0])

    async def _send(
        self, teacher: Teacher, missing: dict[str, Request], check: Check | None, progress: Progress
    ) -> None:
        limits = self._limits_of(teacher)
        if teacher.batch_folder and next(iter(missing.values())).kind != "embedding":
            progress.spent = self.store.spent()
            await Batches(self, teacher, check, progress).answer_all(missing)
            return
        sender = Sender(self, teacher, check, progress, limits)
        loop = asyncio.get_running_loop()
        interrupted = Stopped("interrupted; what was answered is kept, and the same command goes on from there")
        with stop_signals.noted(first=lambda: loop.call_soon_threadsafe(sender.stop, interrupted), insists=True):
            await sender.send_all(missing)
        if sender.stopped is not None:
            raise sender.stopped
        if sender.unanswered:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in sender.unanswered.most_common())
            raise Unanswered(
                f"{progress.stage}: {sender.unanswered.total()} of {len(missing)} requests got no answer from "
                f"{teacher.model} ({reasons}); the same command asks them again, and no others"
            )

    def _limits_of(self, teacher: Teacher) -> Limits:
        """By teacher, since the account's minutes go on from stage to stage."""
        if id(teacher) not in self._limits:
            limits = Limits(
                at_once=teacher.at_once, requests=teacher.requests, tokens=teacher.tokens, clock=self.seconds
            )
            self._limits[id(teacher)] = (teacher, limits)
        return self._limits[id(teacher)][1]

"""The thread that has the model: it gathers the requests that wait into batches, and tells each what it says.

A batch is answered to its end before the next begins; an answer that is finished is told at once, whatever else of its
batch goes on, and one that nobody waits for any more ends where it is. What a request says, and how it is told over
HTTP, is for others.
"""

import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from vlm_jax.errors import InputError
from vlm_jax.inference.answering import Answering, Prompt
from vlm_jax.inference.decoding import bucket
from vlm_jax.inference.engine import STREAM_TOKENS, LoadedModel
from vlm_jax.inference.prompt_rows import patches_of
from vlm_jax.serving.answer_text import AnswerText
from vlm_jax.serving.refusals import closing, failed

TOKENS_A_CALL = 16
"""Decoded between two looks at a batch of which nothing is streamed."""
GATHERING_SECONDS = 0.02
"""That a batch waits for requests which are being prepared."""


@dataclasses.dataclass(frozen=True)
class Piece:
    """New text of a choice; with `finish_reason` its last."""

    choice: int
    text: str
    finish_reason: str | None = None
    tokens: int = 0
    """With `finish_reason`: that the model chose, its stop token among them."""


class Job:
    """The answers that a request waits for."""

    def __init__(
        self, prompts: Sequence[Prompt], stop: Sequence[str], stream: bool, tell: Callable[[Piece | Exception], None]
    ):
        """
        Args:
          prompts: one a choice.
          stream: whether pieces are told as they come; otherwise they may be told at the end.
          tell: called on the model's thread. An exception is the last that is told.
        """
        self.prompts, self.rows = list(prompts), len(prompts)
        self.stop, self.stream, self.tell = tuple(stop), stream, tell
        self.cancelled = False
        """Nobody waits for it."""


def entries_of(prompts: Sequence[Prompt]) -> int:
    """Of the cache that a batch of these takes: all rows are as long as the longest."""
    longest = max(prompt.example.size.tokens for prompt in prompts) + max(prompt.max_new_tokens for prompt in prompts)
    return (1 << (len(prompts) - 1).bit_length()) * bucket(longest)


class ModelWorker:
    """Answers jobs on a thread of its own, from `start` to `close`."""

    def __init__(self, model: LoadedModel, *, rows: int, entries: int, patches: int, report: Callable[[str], None]):
        """
        Args:
          rows: answers of a batch at most.
          entries: tokens that the caches of a batch hold at most, those of kept conversations among them.
          patches: that go through the vision tower for a batch at most.
          report: takes a line for the person at the keyboard.
        """
        self.model, self.rows, self.entries, self.patches, self.report = model, rows, entries, patches, report
        self.batch_seconds = 1.0
        """That batches took of late."""
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._at_work: list[Job] = []
        self._in_preparation = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closed

    @property
    def idle(self) -> bool:
        """Whether nobody else has the model."""
        with self._changed:
            return not (self._waiting or self._at_work)

    def close(self, seconds: float = 0.0) -> None:
        """Tells all that wait that they are not answered any more; waits so long for the thread to end."""
        with self._changed:
            self._closed = True
            jobs = [*self._waiting, *self._at_work]
            self._waiting.clear()
            self._changed.notify_all()
        for job in jobs:
            job.tell(closing())
        if self._thread.is_alive():
            self._thread.join(seconds)

    @contextlib.contextmanager
    def preparation(self) -> Iterator[None]:
        """Of a job that will be submitted: a batch that is being gathered waits for it, for a moment."""
        with self._changed:
            self._in_preparation += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_preparation -= 1
                self._changed.notify_all()

    def submit(self, job: Job) -> None:
        with self._changed:
            if not self._closed:
                self._waiting.append(job)
                self._changed.notify_all()
                return
        job.tell(closing())

    def _run(self) -> None:
        while jobs := self._next_batch():
            start = time.monotonic()
            try:
                self._answer(jobs)
            except Exception as error:
                self._tell_failure(jobs, error)
            self.batch_seconds += 0.3 * (time.monotonic() - start - self.batch_seconds)
            del jobs

    def _tell_failure(self, jobs: Sequence[Job], error: Exception) -> None:
        reason = "; ".join(error.lines) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        self.report(f"error: a batch of {len(jobs)} requests failed: {reason}")
        # What a library says may name files of this machine.
        public_reason = reason if isinstance(error, InputError) else "the model failed; the server's console says why"
        for job in jobs:
            job.tell(failed(public_reason))

    def _next_batch(self) -> list[Job]:
        """Jobs in their order, as many as fit; none where it is closed."""
        with self._changed:
            self._at_work = []
            while not self._at_work and not self._closed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                self._changed.wait_for(self._is_gathered, GATHERING_SECONDS)
                self._take()
            return list(self._at_work)

    def _is_gathered(self) -> bool:
        full = sum(job.rows for job in self._waiting) >= self.rows
        return self._closed or full or not self._in_preparation

    def _take(self) -> None:
        prompts: list[Prompt] = []
        while self._waiting and not self._closed:
            job = self._waiting[0]
            more = [*prompts, *job.prompts]
            if not job.cancelled:
                if prompts and not self._fit(more):
                    return
                self._at_work.append(job)
                prompts = more
            self._waiting.popleft()

    def _fit(self, prompts: Sequence[Prompt]) -> bool:
        if len(prompts) > self.rows or entries_of(prompts) > self.entries:
            return False
        return patches_of([prompt.example.size for prompt in prompts]) <= self.patches

    def _answer(self, jobs: Sequence[Job]) -> None:
        prompts = [prompt for job in jobs for prompt in job.prompts]
        rows = [
            (job, choice, AnswerText(self.model.processor.decode, job.stop))
            for job in jobs
            for choice in range(job.rows)
        ]
        for job in jobs:
            job.prompts = []  # images are read once
        self.model.forget(max(0, self.entries - entries_of(prompts)))
        with self.model.begin(prompts) as answering:
            del prompts
            ended_rows: set[int] = set()
            while True:
                for row, (job, choice, text) in enumerate(rows):
                    if row not in ended_rows and _tell(answering, row, job, choice, text):
                        ended_rows.add(row)
                if self._closed or not answering.unfinished:
                    return
                streams = any(rows[row][0].stream for row in answering.unfinished)
                answering.advance(STREAM_TOKENS if streams else TOKENS_A_CALL)


def _tell(answering: Answering, row: int, job: Job, choice: int, text: AnswerText) -> bool:
    """Tells what is new of an answer; whether that was its last."""
    if job.cancelled:
        answering.finish(row)
        return True
    finished = row not in answering.unfinished
    if not (job.stream or job.stop or finished):
        return False
    piece = text.piece(answering.tokens(row), finished)
    if text.stop_found:
        answering.finish(row)
        job.tell(Piece(choice, piece, "stop", text.tokens))
    elif finished:
        stopped = answering.stopped(row)
        job.tell(Piece(choice, piece, "stop" if stopped else "length", text.tokens + stopped))
    elif piece:
        job.tell(Piece(choice, piece))
    return finished or text.stop_found

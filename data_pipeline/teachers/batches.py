"""Requests answered by batch jobs of Vertex AI, at half the price and within hours, through files in Cloud Storage.

A job is noted before it is made, under a name of its own, so that a run that was killed finds it again and pays for it
once. Answers are joined to requests by the hash of the request, whatever order they come in and whatever a job says of
itself; what a job brought no answer to goes into the next.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from data_pipeline.teachers import batch_lines, prices, request
from data_pipeline.teachers.request import CallFailed, Reply, Request
from data_pipeline.teachers.sending import Check, Progress
from data_pipeline.teachers.store import Job
from vlm_jax import locations, terminal
from vlm_jax.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.teachers.asking import Asker
    from data_pipeline.teachers.vertex import Vertex

MOST_REQUESTS, MOST_BYTES = 200_000, 900_000_000
"""Of a job: Vertex AI takes 200,000 requests or 1 GB."""
JOBS = 3
"""That a request is put into, one after the other, before it is given up."""
_SUCCEEDED = ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED")
_ENDED = (*_SUCCEEDED, "JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")


class Batches:
    """The requests of one call of `Asker.ask`, in jobs."""

    def __init__(self, asker: "Asker", teacher: "Vertex", check: Check | None, progress: Progress):
        self.asker, self.teacher, self.check, self.progress = asker, teacher, check, progress
        self.price = asker.prices.get(teacher.model, prices.FREE)
        self.store = asker.store
        self.stopped: Exception | None = None
        self.failures: Counter[str] = Counter()

    async def answer_all(self, missing: Mapping[str, Request]) -> None:
        """Until every request has an answer, or has failed for good.

        Raises:
          InputError: a job failed, brought nothing, or too little, again and again; what came is kept.
        """
        left = dict(missing)
        for job in self.store.open_jobs(self.teacher.model):  # of an earlier run: paid for already
            if left.keys() & job.keys:
                await self._collect(job, left)
        times: Counter[str] = Counter()
        while again := {key: one for key, one in left.items() if times[key] < JOBS}:
            jobs = [await self._begin(part) for part in self._parts(again)]
            for job in jobs:
                times.update(job.keys)
                await self._collect(job, left)
        if left:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in self.failures.most_common())
            raise InputError(
                f"{self.progress.stage}: {len(left)} of {len(missing)} requests got no answer from {JOBS} batch jobs "
                f"of {self.teacher.model} ({reasons or 'no line with their answer'}); the same command asks them again"
            )

    def _parts(self, left: Mapping[str, Request]) -> list[dict[str, Request]]:
        """As many requests as a job takes, and as may be paid for."""
        parts: list[dict[str, Request]] = [{}]
        size, cost = 0, self.progress.spent
        for key, one in left.items():
            most = self.price.of(prices.estimated(one, self.teacher.most_output), batch=True)
            if self.asker.max_cost is not None and cost + most > self.asker.max_cost:
                if not parts[-1]:
                    raise prices.reached(self.progress.spent, most, self.asker.max_cost)
                return parts
            length = len(one.prompt) * 4 + sum(image.path.stat().st_size for image in one.images) * 4 // 3 + 4096
            if parts[-1] and (len(parts[-1]) >= MOST_REQUESTS or size + length > MOST_BYTES):
                parts.append({})
                size = 0
            parts[-1][key] = one
            size, cost = size + length, cost + most
        return parts

    async def _begin(self, part: Mapping[str, Request]) -> Job:
        """Writes the requests of a job, notes it, and makes it."""
        attempt = self.store.count_jobs()
        title = "vlm-jax-" + hashlib.sha256(f"{attempt} {' '.join(part)}".encode()).hexdigest()[:20]
        job = Job(title, f"{self.teacher.batch_folder.rstrip('/')}/{title}", list(part))
        lines = "".join(batch_lines.line_of(key, one, self.teacher.parameters_of(one)) for key, one in part.items())
        place = locations.folder(job.place)
        with locations.answering(place):
            await asyncio.to_thread((place / "requests.jsonl").write_text, lines)
        self.store.note_job(job, self.teacher.model, "noted")
        job.name = await self.teacher.create_job(title, f"{job.place}/requests.jsonl", f"{job.place}/answers")
        self.store.note_job(job, self.teacher.model, "made")
        return job

    async def _collect(self, job: Job, left: dict[str, Request]) -> None:
        """Waits for a job and keeps what it brought; requests that it answered are no longer among those left."""
        if not job.name:
            job.name = await self.teacher.find_job(job.title)
            if not job.name:  # it was noted, and never made
                self.store.note_job(job, self.teacher.model, "lost")
                return
        while (ended := await self.teacher.job_state(job.name))[0] not in _ENDED:
            terminal.say(f"{self.progress.stage}: batch job {job.name.rpartition('/')[2]} is {_plain(ended[0])}")
            await self.asker.wait(self.teacher.batch_poll_s)
        asked = {key: left[key] for key in job.keys if key in left}
        usable, first = self._keep(batch_lines.answers_in(f"{job.place}/answers"), asked, left)
        state, detail = ended
        # Answers to what this run does not ask, a preview of a killed run's job, are paid for and wait for the next.
        unasked = [key for key in job.keys if key not in asked]
        waits = state in _SUCCEEDED and usable and len(self.store.known(unasked)) < len(unasked)
        count = len(job.keys)
        if waits:
            job.keys = unasked  # what this run looked at counts once, used or not
        self.store.note_job(job, self.teacher.model, "made" if waits else "collected")
        if state not in _SUCCEEDED or (asked and not usable):
            reason = terminal.line(detail or first or "no line with an answer", 300)
            raise InputError(
                f"{self.progress.stage}: batch job {job.name.rpartition('/')[2]} is {_plain(state)} and brought "
                f"{usable:,} of {count:,} answers ({reason}); these are kept, and the same command asks for "
                "the rest"
            )

    def _keep(
        self, lines: Iterable[batch_lines.Line], asked: Mapping[str, Request], left: dict[str, Request]
    ) -> tuple[int, str]:
        """(how many lines brought an outcome for good, what the first one that did not says)."""
        by_hash = {batch_lines.hash_of(one, self.teacher.parameters_of(one)): key for key, one in asked.items()}
        usable, first = 0, ""
        for line in lines:
            key = batch_lines.key_of(line, by_hash)
            if key is None or key not in left:
                self.failures["an answer to another request"] += key is None
                continue
            outcome = self._outcome(line, asked[key])
            cost = self.price.of(outcome.usage, batch=True)
            self.progress.spent += cost
            if isinstance(outcome, Reply) or outcome.reason in request.FINAL:
                self.store.keep(key, asked[key], self.teacher.model, outcome, cost=cost)
                del left[key]
                usable += 1
                self.progress.done += 1
                self.asker.progress(self.progress)
            else:
                first = first or str(outcome)
                self.failures[outcome.reason] += 1
                self.asker.failures[outcome.reason] += 1
                self.store.note_call(key, asked[key], self.teacher.model, outcome, cost=cost)
        return usable, first

    def _outcome(self, line: batch_lines.Line, one: Request) -> Reply | CallFailed:
        if line.failure is not None:
            return line.failure
        try:
            reply = batch_lines.reply_of(line, one.kind)
        except CallFailed as failed:
            return failed
        try:
            if self.check is not None:
                self.check(one, reply)
        except CallFailed as failed:
            return CallFailed(failed.reason, failed.detail, usage=reply.usage, raw=reply.raw)
        return reply


def _plain(state: str) -> str:
    return state.removeprefix("JOB_STATE_").replace("_", " ").lower()

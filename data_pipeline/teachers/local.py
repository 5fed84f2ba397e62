"""Any model that `vlm_jax.load` opens, as a teacher or as the student that is asked what it knows.

Requests that wait are answered together. The name under which answers are kept has a digest of the weights, so that a
model that was trained on is asked anew, and one that was moved is not.
"""

import asyncio
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipeline.teachers.request import CallFailed, Kind, Reply, Request, Usage
from data_pipeline.teachers.teacher import Teacher
from vlm_jax.errors import InputError


class Local(Teacher):
    def __init__(
        self, *, model: str, rows: int, dtype: str, quantise: str, temperature: float, max_output_tokens: int, seed: int
    ):
        if rows < 1:
            raise InputError(f"a teacher's rows are {rows}; wanted at least 1")
        self._path, self._rows = model, rows
        self._loading = {"dtype": dtype, "quantise": None if quantise == "none" else quantise}
        self._sampling = {"temperature": temperature, "max_output_tokens": max_output_tokens, "seed": seed}
        self.most_output = max_output_tokens
        self.at_once = 2 * rows  # the next ones wait while these are answered
        self._waiting: list[tuple[Request, asyncio.Future]] = []
        self._task: asyncio.Task | None = None

    @functools.cached_property
    def _model(self) -> Any:
        import vlm_jax

        return vlm_jax.load(self._path, **self._loading)

    @functools.cached_property
    def model(self) -> str:  # type: ignore[override]
        kind = "" if self._loading["quantise"] is None else f" {self._loading['quantise']}"
        return f"{Path(self._path).name}{kind} {self._model.fingerprint()}"

    def parameters(self, kind: Kind) -> Mapping[str, Any]:
        return self._sampling

    async def send(self, request: Request) -> Reply:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer_all())
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever is about to ask gets to do so
            first = self._sampling_of(self._waiting[0][0])
            together = [one for one in self._waiting if self._sampling_of(one[0]) == first][: self._rows]
            self._waiting = [one for one in self._waiting if one not in together]
            requests = [request for request, _ in together]
            try:
                replies = await asyncio.to_thread(self._answers, requests, first)
            except InputError as error:
                replies = [CallFailed("bad request", str(error))] * len(together)
            except BaseException as error:
                for _, future in together:
                    if not future.done():
                        future.set_exception(error)
                raise
            for (_, future), reply in zip(together, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, CallFailed):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)

    def _sampling_of(self, request: Request) -> tuple[float, int, int]:
        values = {**self._sampling, **request.parameters}
        seed = int(values["seed"]) + request.variant
        # Greedy answers are the same for every seed, and may share a batch.
        return float(values["temperature"]), int(values["max_output_tokens"]), seed if values["temperature"] else 0

    def _answers(self, requests: list[Request], sampling: tuple[float, int, int]) -> list[Reply | CallFailed]:
        temperature, most, seed = sampling
        conversations = [[{"role": "user", "content": _content(request)}] for request in requests]
        # What is drawn depends on the place in a list, so that samples are drawn one by one.
        lists = [conversations] if temperature == 0 else [[one] for one in conversations]
        tokens = [answer for some in lists for answer in self._model.generate_tokens(some, most, temperature, seed)]
        return [self._reply(answer, most) for answer in tokens]

    def _reply(self, tokens: Any, most: int) -> Reply | CallFailed:
        usage, text = Usage(output=len(tokens)), self._model.processor.decode(tokens)
        if len(tokens) >= most:
            return CallFailed("cut off", f"the answer reached max_output_tokens ({most})", usage=usage, raw=text)
        if not text.strip():
            return CallFailed("empty", "the model said nothing", usage=usage, raw=text)
        return Reply(text=text, model=self.model, usage=usage, raw=text)


def _content(request: Request) -> list[dict[str, Any]]:
    images = [{"type": "image", "image": image.read()} for image in request.images]
    return [*images, {"type": "text", "text": request.prompt}]

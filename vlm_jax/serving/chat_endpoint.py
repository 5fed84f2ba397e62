"""`POST /v1/chat/completions`: a request from its first byte to the last of its answer.

A client that goes away, at whatever moment, frees its place, and its answer ends where it is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.responses import JSONResponse

from vlm_jax.inference.engine import LoadedModel
from vlm_jax.serving.chat_request import ChatRequest, read_chat_request
from vlm_jax.serving.completion import Completion, event
from vlm_jax.serving.connection import in_a_place
from vlm_jax.serving.places import Place, Places
from vlm_jax.serving.prompts import Limits, prompts_of
from vlm_jax.serving.refusals import Refused, not_served
from vlm_jax.serving.worker import Job, ModelWorker, Piece

Result = TypeVar("Result")


class ChatEndpoint:
    """An ASGI application for one path."""

    def __init__(
        self, model: LoadedModel, worker: ModelWorker, *, name: str, fingerprint: str, queue: int, default_tokens: int
    ):
        """
        Args:
          name: of the model, that requests must give.
          queue: requests that may wait while a batch is answered.
          default_tokens: of an answer, where the request does not say.
        """
        self._model, self._worker, self._name, self._fingerprint = model, worker, name, fingerprint
        self._default_tokens = default_tokens
        self.places = Places(worker.rows + queue, lambda: min(60, max(1, round(worker.batch_seconds))))
        # One thread: what is decoded at one time is bounded, and the model's thread has the other core.
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")
        # Of those that wait, images and tokens are held of one batch beyond the one that is answered.
        self._prepared = asyncio.Semaphore(2 * worker.rows)

    def close(self) -> None:
        self._preparing.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, scope, receive, send) -> None:
        await in_a_place(self.places, scope, receive, lambda place: self._answered(place, scope, receive, send))

    async def _answered(self, place: Place, scope, receive, send) -> None:
        request = await self._prepare(lambda: read_chat_request(place.take_body(), most_choices=self._worker.rows))
        if request.model != self._name:
            raise not_served(request.model, self._name)
        async with self._prepared:
            pieces: asyncio.Queue[Piece | Exception] = asyncio.Queue()
            with self._worker.preparation():
                job, completion = await self._job(request, pieces)
                place.free()
                stream = request.stream
                del request
                self._worker.submit(job)
            try:
                if stream:
                    await _stream(completion, pieces, send)
                else:
                    while completion.unfinished:
                        completion.take(await _next(pieces))
                    await JSONResponse(completion.whole())(scope, receive, send)
            finally:
                job.cancelled = True

    async def _job(self, request: ChatRequest, pieces: asyncio.Queue) -> tuple[Job, Completion]:
        loop = asyncio.get_running_loop()

        def tell(piece: Piece | Exception) -> None:
            try:
                loop.call_soon_threadsafe(pieces.put_nowait, piece)
            except RuntimeError:  # the server has stopped
                pass

        limits = Limits(self._worker.entries, self._worker.patches, self._default_tokens)
        prompts = await self._prepare(lambda: prompts_of(self._model, request, limits))
        prompt_tokens = len(prompts[0].example.input_ids)
        completion = Completion(
            self._name, self._fingerprint, prompt_tokens, request.choices, include_usage=request.include_usage
        )
        return Job(prompts, request.stop, request.stream, tell), completion

    async def _prepare(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._preparing, function)


async def _next(pieces: asyncio.Queue) -> Piece:
    piece = await pieces.get()
    if isinstance(piece, Exception):
        raise piece
    return piece


async def _stream(completion: Completion, pieces: asyncio.Queue, send) -> None:
    """Begins once there is something to say: what fails before has a status of its own."""
    piece = await _next(pieces)
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for events in _events(completion, piece, pieces):
        await send({"type": "http.response.body", "body": events, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _events(completion: Completion, piece: Piece, pieces: asyncio.Queue) -> AsyncIterator[bytes]:
    yield completion.beginning()
    try:
        while True:
            completion.take(piece)
            yield completion.chunks(piece)
            if not completion.unfinished:
                break
            piece = await _next(pieces)
    except Refused as error:
        yield event(error.body())
        return
    yield completion.end()

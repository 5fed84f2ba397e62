"""The application: which paths there are, and that whatever goes wrong is answered in OpenAI's form.

What a request says is never logged, nor is a token.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, Router

from vlm_jax.inference.engine import LoadedModel
from vlm_jax.retrieval.encoder import Encoder, ModelEncoder
from vlm_jax.serving.access import Access
from vlm_jax.serving.chat_endpoint import ChatEndpoint
from vlm_jax.serving.embedding_endpoint import EmbeddingEndpoint
from vlm_jax.serving.refusals import Refused, failed
from vlm_jax.serving.worker import ModelWorker

MAX_DISCARDED = 128 << 20
DISCARDING_SECONDS = 10.0
"""Bytes and seconds of a refused request that are still received."""


class Application:
    """A model behind OpenAI's API: an ASGI application, from `start` to `close`."""

    def __init__(
        self,
        model: LoadedModel,
        name: str,
        *,
        host: str,
        token: str | None,
        batch: int,
        queue: int,
        cache_tokens: int,
        patches: int,
        default_tokens: int,
        report: Callable[[str], None],
        encoder: Encoder | None = None,
        encoder_name: str = "",
    ):
        """
        Args:
          name: of the model, in requests.
          encoder: of `/v1/embeddings`, under its own name there; None: the model's own, under the model's.
          host: where it listens.
          token: that requests must bear; None: none.
          batch: answers at one time.
          queue: requests that may wait beside them.
          cache_tokens: that all caches hold at most; beyond it one request is refused, and a batch takes fewer.
          patches: that go through the vision tower at one time; beyond them likewise.
          default_tokens: of an answer at most, where a request does not say.
          report: takes a line for the person at the keyboard.
        """
        self._report = report
        self._created = int(time.time())
        self.worker = ModelWorker(model, rows=batch, entries=cache_tokens, patches=patches, report=report)
        self.chat = ChatEndpoint(
            model,
            self.worker,
            name=name,
            fingerprint=f"vlm_jax_{model.fingerprint()}",
            queue=queue,
            default_tokens=default_tokens,
        )
        self._names = list(dict.fromkeys([name] if encoder is None else [name, encoder_name]))
        self.embeddings = EmbeddingEndpoint(encoder or ModelEncoder(model, name), name=self._names[-1], queue=queue)
        routes = [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{name:path}", self._one_model, methods=["GET"]),
            Route("/health", self._health, methods=["GET"]),
        ]
        # An address that is nearly right is wrong: nothing is redirected.
        self._app = Access(Router(routes, redirect_slashes=False), host=host, token=token)

    def start(self) -> None:
        self.worker.start()

    def close(self, seconds: float = 0.0) -> None:
        """Ends what is being answered; waits so long for the model."""
        self.chat.close()
        self.embeddings.close()
        self.worker.close(seconds)

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        scope["app"] = self  # so that the router raises what it finds wrong
        exchange = _Exchange(receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
            return
        except Refused as error:
            refused = error
        except HTTPException as error:  # no such path, or not this method
            where = f"{scope['method']} {scope['path'][:200]}"
            code = "not_found" if error.status_code == 404 else "wrong_method"
            refused = Refused(f"{where}: {error.detail}", status=error.status_code, code=code, headers=error.headers)
        except Exception as error:
            self._report(f"error: {scope['method']} {scope['path']}: {type(error).__name__}: {error}")
            refused = failed("the server failed; its console says why")
        if not exchange.begun:
            await exchange.discard_body()
            await JSONResponse(refused.body(), refused.status, refused.headers)(scope, receive, send)

    def _model_object(self, name: str) -> dict:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "vlm-jax"}

    async def _models(self, request: Request) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [self._model_object(name) for name in self._names]})

    async def _one_model(self, request: Request) -> JSONResponse:
        name = request.path_params["name"]
        if name not in self._names:
            raise Refused(
                f"the model {name[:100]!r} is not served here", status=404, param="model", code="model_not_found"
            )
        return JSONResponse(self._model_object(name))

    async def _health(self, request: Request) -> JSONResponse:
        alive = self.worker.alive
        return JSONResponse({"status": "ok" if alive else "stopped"}, 200 if alive else 503)


class _Exchange:
    """What has been received of a request, and whether its answer has begun."""

    def __init__(self, receive, send):
        self._receive, self._send = receive, send
        self._more, self.begun = True, False

    async def receive(self):
        message = await self._receive()
        self._more = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message) -> None:
        self.begun = True
        await self._send(message)

    async def discard_body(self) -> None:
        """Reads what is left of a request, within bounds: of a connection that is closed with data on its way a client
        never sees the answer."""
        left = MAX_DISCARDED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARDING_SECONDS):
                while self._more and left > 0:
                    left -= len((await self.receive()).get("body", b""))

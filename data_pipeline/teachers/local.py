"""Any model that `vlm_jax.load` opens, as a teacher or as the student that is asked what it knows; for vectors also a
CLIP or SigLIP.

Requests that wait are answered together. The name under which answers are kept has a digest of the weights, so that a
model that was trained on is asked anew, and one that was moved is not.
"""

import asyncio
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.teachers.request import CallFailed, Kind, Reply, Request, Usage
from data_pipeline.teachers.teacher import Teacher
from vlm_jax.errors import InputError


class Local(Teacher):
    takes = ("text", "embedding")

    def __init__(
        self,
        *,
        model: str,
        rows: int,
        dtype: str,
        quantise: str,
        temperature: float,
        max_output_tokens: int,
        seed: int,
        **seen: Any,
    ):
        """
        Args:
          seen: how much of an image it sees, by the names in `settings.SETTINGS`.
        """
        if rows < 1:
            raise InputError(f"a teacher's rows are {rows}; wanted at least 1")
        self._path, self._rows = model, rows
        self._loading: dict[str, Any] = {"dtype": dtype, "quantise": None if quantise == "none" else quantise}
        self._loading |= _tokens_seen(**seen)
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
    def _encoder(self) -> Any:
        """Of embeddings: a CLIP or SigLIP as it is, or the model."""
        from vlm_jax.retrieval.encoder import ModelEncoder, load_encoder

        if self._is_encoder:
            return load_encoder(self._path, self._loading["dtype"])
        return ModelEncoder(self._model, Path(self._path).name)

    @functools.cached_property
    def _is_encoder(self) -> bool:
        from vlm_jax.checkpoint.encoder_folder import is_encoder_folder
        from vlm_jax.checkpoint.source import resolve

        folder = resolve(self._path)
        return isinstance(folder, Path) and is_encoder_folder(folder)

    @functools.cached_property
    def model(self) -> str:  # type: ignore[override]
        if self._is_encoder:
            return f"{Path(self._path).name} {self._encoder.fingerprint()}"
        kind = "" if self._loading["quantise"] is None else f" {self._loading['quantise']}"
        return f"{Path(self._path).name}{kind} {self._model.fingerprint()}"

    def ready(self) -> None:
        from vlm_jax.checkpoint.model_source import open_model

        if not self._is_encoder:
            open_model(self._path).check()

    @property
    def weights(self) -> str:
        """A digest of them, whatever the model's folder is called."""
        return self.model.rpartition(" ")[2]

    def parameters(self, kind: Kind) -> Mapping[str, Any]:
        if kind == "embedding":
            return {}
        seen = {name: value for name, value in self._loading.items() if name not in ("dtype", "quantise")}
        return {**self._sampling, **seen}

    async def send(self, request: Request) -> Reply:
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer_all())
        return await future

    async def close(self) -> None:
        for name in ("_model", "_encoder"):
            self.__dict__.pop(name, None)

    async def _answer_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(0)  # whoever is about to ask gets to do so
            together, self._waiting = self._waiting[: self._rows], self._waiting[self._rows :]
            try:
                replies = await asyncio.to_thread(self._replies, [request for request, _ in together])
            except Exception as error:  # for those who wait
                for _, future in together:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), reply in zip(together, replies, strict=True):
                if future.done():
                    continue
                if isinstance(reply, CallFailed):
                    future.set_exception(reply)
                else:
                    future.set_result(reply)

    def _replies(self, requests: Sequence[Request]) -> list[Reply | CallFailed]:
        """Vectors one by one, so that they do not depend on what else is asked; texts together."""
        asked = [place for place, request in enumerate(requests) if request.kind != "embedding"]
        answers = iter(self._answers([requests[place] for place in asked]) if asked else [])
        return [self._vector(request) if request.kind == "embedding" else next(answers) for request in requests]

    def _vector(self, request: Request) -> Reply | CallFailed:
        if len(request.images) > 1:
            return CallFailed("cannot be asked", "a vector is of one image at most")
        try:
            image = request.images[0].read() if request.images else None
            vector = self._encoder.embed(request.prompt or None, image)
            tokens = sum(self._encoder.token_counts([request.prompt]))
        except InputError as error:
            return CallFailed("cannot be asked", str(error))
        return Reply(vector=tuple(map(float, vector)), model=self.model, usage=Usage(input=tokens))

    def _answers(self, requests: Sequence[Request]) -> list[Reply | CallFailed]:
        """Answers that are each as if it had been asked alone."""
        found: dict[int, Reply | CallFailed] = {}
        prompts = {}
        for place, request in enumerate(requests):
            try:
                prompts[place] = self._prompt(request)
            except InputError as error:  # too long, or an image that does not open
                found[place] = CallFailed("cannot be asked", str(error))
        if prompts:
            with self._model.begin(list(prompts.values())) as answering:
                answering.advance(max(prompt.max_new_tokens for prompt in prompts.values()))
                while answering.unfinished:
                    answering.advance(self.most_output)
                for row, (place, prompt) in enumerate(prompts.items()):
                    read = len(prompt.example.input_ids)
                    found[place] = self._reply(answering.tokens(row), read, cut=not answering.stopped(row))
        return [found[place] for place in range(len(requests))]

    def _prompt(self, request: Request) -> Any:
        from vlm_jax.inference.answering import Prompt

        values = {**self._sampling, **request.parameters}
        messages = [{"role": "user", "content": _content(request)}]
        most = int(values["max_output_tokens"])
        sampling = self._model.sampling(float(values["temperature"]), request.seed(int(values["seed"])), {})
        return Prompt(self._model.prompt(messages, most), most, sampling)

    def _reply(self, tokens: Any, read: int, *, cut: bool) -> Reply | CallFailed:
        usage, text = Usage(input=read, output=len(tokens)), self._model.processor.decode(tokens)
        reply = Reply(text=text, model=self.model, usage=usage, raw=text)
        if cut:
            return CallFailed("cut off", "the answer reached max_output_tokens", usage=usage, raw=text, partial=reply)
        if not text.strip():
            return CallFailed("empty", "the model said nothing", usage=usage, raw=text)
        return reply


def _tokens_seen(
    min_visual_tokens: int = 0,
    max_visual_tokens: int = 0,
    visual_tokens: float = 1.0,
    token_reduction: str = "resize",
    token_reduction_layer: int = 0,
) -> dict[str, Any]:
    """As `vlm_jax.load` takes them; nothing where all is as the model's folder says."""
    if max_visual_tokens:
        return {"visual_tokens": (min_visual_tokens, max_visual_tokens)}
    if visual_tokens == 1.0:
        return {}
    layer = {"token_reduction_layer": token_reduction_layer} if token_reduction_layer else {}
    return {"visual_tokens": visual_tokens, "token_reduction": token_reduction, **layer}


def _content(request: Request) -> list[dict[str, Any]]:
    images = [{"type": "image", "image": image.read()} for image in request.images]
    return [*images, {"type": "text", "text": request.prompt}]

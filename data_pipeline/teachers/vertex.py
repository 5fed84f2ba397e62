"""Google's models on Vertex AI, through google-genai: Gemini text and images, Imagen, embeddings.

The client is used for its protocol and its credentials alone. Its retries are off (`sending` has ours), and it is made
to use httpx: where aiohttp is installed it would otherwise send a dropped call a second time by itself.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from data_pipeline.teachers import http, vertex_forms
from data_pipeline.teachers.request import PASSING, CallFailed, Kind, Reply, Request
from data_pipeline.teachers.teacher import Teacher
from vlm_jax import terminal
from vlm_jax.errors import InputError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Vertex(Teacher):
    takes = ("text", "image", "embedding")

    def __init__(
        self,
        *,
        model: str,
        endpoint: str,
        api_key_env: str,
        project: str,
        location: str,
        at_once: int,
        requests_per_minute: int,
        tokens_per_minute: int,
        timeout_s: float,
        temperature: float,
        max_output_tokens: int,
        seed: int,
        thinking_level: str,
        aspect_ratio: str,
        image_size: str,
        dimensions: int,
        batch_folder: str,
        batch_poll_s: float,
    ):
        self.model, self.at_once, self.most_output = model, at_once, max_output_tokens
        self.requests, self.tokens = requests_per_minute, tokens_per_minute
        self._timeout, self._endpoint, self._token_env = timeout_s, endpoint, api_key_env
        self._project, self._location = project, location
        self._parameters: dict[Kind, dict[str, Any]] = {
            "text": {
                "temperature": temperature,
                "max_output_tokens": max_output_tokens,
                "thinking_level": thinking_level,
                "seed": seed,
            },
            "image": {"aspect_ratio": aspect_ratio, "image_size": image_size, "seed": seed},
            "embedding": {"dimensions": dimensions},
        }
        self._client: Any = None
        self.batch_folder, self.batch_poll_s = batch_folder, batch_poll_s
        if batch_folder and not batch_folder.startswith("gs://"):
            raise InputError(
                f"a teacher's batch_folder is {batch_folder!r}; wanted an address such as gs://bucket/folder"
            )

    def ready(self) -> None:
        genai_package()
        if self._token_env:
            http.key_in(self._token_env)

    def parameters(self, kind: Kind) -> Mapping[str, Any]:
        return self._parameters[kind]

    def parameters_of(self, request: Request) -> dict[str, Any]:
        """All parameters of a request, its own seed among them."""
        parameters = {**self._parameters[request.kind], **request.parameters}
        if "seed" in parameters:
            parameters["seed"] = request.seed(int(parameters["seed"]))
        return parameters

    async def send(self, request: Request) -> Reply:
        parameters = self.parameters_of(request)
        if request.kind == "embedding":
            call, reply = self._embed, vertex_forms.embedding_of
        elif request.kind == "image" and self.model.rpartition("/")[2].startswith("imagen"):
            call, reply = self._imagen, vertex_forms.imagen_of
        else:
            call, reply = self._generate, vertex_forms.reply_of
        client = self._connected()
        with _failing():
            response = await call(client.aio.models, request, parameters)
        return reply(response, request.kind)

    async def create_job(self, title: str, source: str, target: str) -> str:
        """Makes a batch job of a file of requests, and returns its name.

        Raises:
          InputError: it cannot be made.
        """
        with _as_input_error(self.model), _failing():
            job = await self._connected().aio.batches.create(
                model=self.model, src=source, config={"dest": target, "display_name": title}
            )
        return job.name

    async def find_job(self, title: str) -> str:
        """The name of the job with this title, which an interrupted run may have made; "" where there is none."""
        with _as_input_error(self.model), _failing():
            async for job in await self._connected().aio.batches.list(config={"page_size": 100}):
                if job.display_name == title:
                    return job.name
        return ""

    async def job_state(self, name: str) -> tuple[str, str]:
        """(state, what is said of an error) of a job. Asked again where the service does not answer."""
        for attempt in range(1, 9):
            try:
                with _failing():
                    job = await self._connected().aio.batches.get(name=name)
                return vertex_forms.name_of(job.state), (job.error.message or "") if job.error else ""
            except CallFailed as failed:
                if failed.reason not in PASSING or attempt == 8:
                    raise InputError(f"{self.model}: batch job {name}: {failed}") from None
                await asyncio.sleep(failed.after or 0.25 * 2**attempt)
        raise AssertionError("not reached")

    async def _generate(self, models: Any, request: Request, parameters: Mapping[str, Any]) -> Any:
        contents, config = vertex_forms.contents_of(request), vertex_forms.config_of(request, parameters)
        return await models.generate_content(model=self.model, contents=contents, config=config)

    async def _imagen(self, models: Any, request: Request, parameters: Mapping[str, Any]) -> Any:
        config = vertex_forms.imagen_config(parameters)
        return await models.generate_images(model=self.model, prompt=request.prompt, config=config)

    async def _embed(self, models: Any, request: Request, parameters: Mapping[str, Any]) -> Any:
        config = {"output_dimensionality": parameters["dimensions"]}
        return await models.embed_content(model=self.model, contents=vertex_forms.contents_of(request), config=config)

    def _connected(self) -> Any:
        """The client, made with the first call: it belongs to the event loop that it is used in."""
        if self._client is None:
            genai, httpx = genai_package(), http.httpx_package()
            credentials, project = self._credentials()
            limits = httpx.Limits(max_connections=self.at_once, max_keepalive_connections=self.at_once)
            http_options = genai.types.HttpOptions(
                base_url=self._endpoint or None,
                timeout=int(self._timeout * 1000),
                httpx_async_client=httpx.AsyncClient(limits=limits, timeout=httpx.Timeout(self._timeout, pool=None)),
            )
            self._http = http_options.httpx_async_client
            self._client = genai.Client(
                vertexai=True,
                project=project,
                location=self._location,
                credentials=credentials,
                http_options=http_options,
            )
        return self._client

    def _credentials(self) -> tuple[Any, str]:
        import google.auth
        from google.oauth2.credentials import Credentials

        if self._token_env:
            try:
                token = http.key_in(self._token_env)
            except InputError as error:
                raise CallFailed("no credentials", str(error)) from None
            credentials, project = Credentials(token=token), self._project
        else:
            try:
                credentials, project = google.auth.default(scopes=[_SCOPE])
            except google.auth.exceptions.DefaultCredentialsError:
                raise CallFailed(
                    "no credentials", "`gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
                ) from None
        if not (self._project or project):
            raise CallFailed("no credentials", "no project is known; set the teacher's project")
        return credentials, self._project or project

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aio.aclose()
            await self._http.aclose()  # which the client leaves to whom it belongs


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """Turns what the client raises into CallFailed."""
    try:
        yield
    except Exception as error:
        failed = failed_in(error)
        if failed is None:
            raise
        raise failed from None


@contextlib.contextmanager
def _as_input_error(model: str) -> Iterator[None]:
    try:
        yield
    except CallFailed as failed:
        raise InputError(f"{model}: batch jobs: {terminal.line(str(failed))}") from None


def genai_package() -> Any:
    try:
        import google.genai as genai
    except ImportError:
        raise InputError("a teacher of kind vertex needs google-genai; pip install 'vlm-jax[corpus]'") from None
    return genai


def failed_in(error: Exception) -> CallFailed | None:
    """What an exception of the client means; None for one that is none of its own."""
    import google.auth.exceptions
    from google.genai import errors

    if isinstance(error, CallFailed):
        return error
    if isinstance(error, errors.APIError):
        reason = http.reason_of(error.code or 500)
        if reason == "bad request" and error.status == "UNAUTHENTICATED":
            reason = "no credentials"
        return CallFailed(reason, f"{error.code} {terminal.line(error.message or '', 300)}", after=_after(error))
    if isinstance(error, json.JSONDecodeError | RecursionError):
        return CallFailed("half a response", str(error))
    if isinstance(error, pydantic.ValidationError):
        return CallFailed("half a response", f"of no known form: {terminal.line(str(error), 100)}")
    if isinstance(error, google.auth.exceptions.TransportError):
        return CallFailed("connection dropped", terminal.line(str(error), 200))
    if isinstance(error, google.auth.exceptions.GoogleAuthError):
        return CallFailed("no credentials", terminal.line(str(error), 200))
    if isinstance(error, TimeoutError):
        return CallFailed("timed out")
    return http.failed_in(error)


def _after(error: Any) -> float | None:
    """Seconds to wait: the header's, or those of the RetryInfo among the details."""
    response = getattr(error, "response", None)
    after = http.seconds_of(response.headers.get("Retry-After")) if response is not None else None
    content = error.details.get("error") if isinstance(error.details, Mapping) else None
    details = content.get("details") if isinstance(content, Mapping) else None
    for detail in details if isinstance(details, list) else ():
        delay = str(detail.get("retryDelay", "")) if isinstance(detail, Mapping) else ""
        if after is None and delay.endswith("s"):
            after = http.seconds_of(delay[:-1])
    return after

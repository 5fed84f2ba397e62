"""Sends a request to Vertex AI through Google's client, by REST: one CustomJob, once.

What the request says is `job`'s. Nothing is sent again by itself: a job that was made although no answer came back
would run, and be paid for, twice.
"""

import dataclasses
import importlib
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.launching.job import Request
from vlm_jax.errors import InputError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_CONSOLE = "https://console.cloud.google.com/vertex-ai/locations/{location}/training/{number}?project={project}"
_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A job that was made: its resource name, and its page."""

    name: str
    page: str


def address(request: Request, endpoint: str = "") -> str:
    """Where the request goes."""
    base = endpoint.rstrip("/") or f"https://{request.location}-aiplatform.googleapis.com"
    return f"{base}/v1/{request.parent}/customJobs"


def check_endpoint(endpoint: str) -> None:
    """Raises InputError unless an endpoint is Google's, or a server on this machine, which is shown no credentials."""
    parts = urlsplit(endpoint)
    google = parts.scheme == "https" and (parts.hostname or "").endswith(".googleapis.com")
    if endpoint and not google and not _is_here(endpoint):
        raise InputError(
            f"--endpoint={endpoint}: credentials are shown to Google only; wanted https://….googleapis.com, or "
            "http://127.0.0.1:PORT for a server on this machine, which gets none"
        )


def message(request: Request) -> Any:
    """The request as the client's own CustomJob, which knows every field and refuses others."""
    return _client().CustomJob.from_json(json.dumps(request.body))


def submit(request: Request, *, endpoint: str = "") -> Submitted:
    """Sends the request, once.

    Raises:
      InputError: something is still open, the client or credentials are missing, or Google refuses.
    """
    check_endpoint(endpoint)
    if request.open:
        raise InputError([*request.open, "nothing was sent; --dry_run prints the request as it stands"])
    client, job = _client(), message(request)
    import google.api_core.exceptions
    import google.auth.exceptions
    import requests

    try:
        service = client.JobServiceClient(
            transport="rest",
            credentials=_credentials(endpoint),
            client_options={"api_endpoint": endpoint.rstrip("/") or f"{request.location}-aiplatform.googleapis.com"},
        )
        made = service.create_custom_job(parent=request.parent, custom_job=job, retry=None, timeout=_SECONDS)
    except google.auth.exceptions.DefaultCredentialsError:
        raise InputError(
            "there are no Google credentials here: gcloud auth application-default login, or set "
            "GOOGLE_APPLICATION_CREDENTIALS"
        ) from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise InputError(f"Google's credentials do not work: {_line(error)}") from None
    except google.api_core.exceptions.GoogleAPICallError as error:
        code, words = getattr(error.code, "value", error.code), _line(error.message)
        doubt = "" if isinstance(code, int) and code < 500 else _DOUBT
        raise InputError(f"Vertex AI does not take the job ({code}): {words}{doubt}") from None
    except requests.exceptions.RequestException as error:
        raise InputError(f"{address(request, endpoint)}: no answer ({type(error).__name__}){_DOUBT}") from None
    _, project, _, location, _, number = made.name.split("/")
    return Submitted(made.name, _CONSOLE.format(location=location, number=number, project=project))


_DOUBT = "; see `gcloud ai custom-jobs list` before you send it again: it may have been made"


def _is_here(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    return parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")


def _credentials(endpoint: str) -> Any:
    import google.auth
    from google.auth.credentials import AnonymousCredentials

    return AnonymousCredentials() if _is_here(endpoint) else google.auth.default(scopes=[_SCOPE])[0]


def _client() -> Any:
    try:
        return importlib.import_module("google.cloud.aiplatform_v1")  # takes seconds
    except ImportError:
        raise InputError(
            f"sending a job needs Google's client: {sys.executable} -m pip install 'vlm-jax[launch]'"
        ) from None


def _line(text: object) -> str:
    return " ".join(str(text).split())[:500]

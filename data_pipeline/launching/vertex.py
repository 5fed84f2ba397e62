"""Sends a request to Vertex AI through Google's client, by REST: one CustomJob, once.

What the request says is `job`'s. Nothing is sent again by itself: a job that was made although no answer came back
would run, and be paid for, twice.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from data_pipeline.launching.job import Request
from vlm_jax import terminal
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
    try:
        parts = urlsplit(endpoint)
        plain = parts.username is None and parts.port != 0 and not parts.query
    except ValueError:  # no number of a port
        plain = False
    google = plain and parts.scheme == "https" and (parts.hostname or "").endswith(".googleapis.com")
    if endpoint and not google and not (plain and _is_here(endpoint)):
        shown = endpoint if plain else "…"
        raise InputError(
            f"--endpoint={shown}: credentials are shown to Google only; wanted https://….googleapis.com, or "
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
    with _told_in_a_line(request, endpoint):
        service = client.JobServiceClient(
            transport="rest",
            credentials=_credentials(endpoint),
            client_options={"api_endpoint": endpoint.rstrip("/") or f"{request.location}-aiplatform.googleapis.com"},
        )
        made = service.create_custom_job(parent=request.parent, custom_job=job, retry=None, timeout=_SECONDS)
    number = made.name.rpartition("/")[2]
    return Submitted(made.name, _CONSOLE.format(location=request.location, number=number, project=_project(request)))


@contextlib.contextmanager
def _told_in_a_line(request: Request, endpoint: str) -> Iterator[None]:
    """What Google's client raises, as an InputError: what to do, and whether a job may have been made all the same."""
    import google.api_core.exceptions
    import google.auth.exceptions
    import google.protobuf.json_format
    import requests

    try:
        yield
    except google.auth.exceptions.DefaultCredentialsError as error:
        reason = f" ({_line(error)})" if "GOOGLE_APPLICATION_CREDENTIALS" in os.environ else ""
        raise InputError(
            "there are no Google credentials here: gcloud auth application-default login, or set "
            f"GOOGLE_APPLICATION_CREDENTIALS{reason}"
        ) from None
    except google.auth.exceptions.TransportError:
        raise InputError("nothing was sent: where Google signs you in gives no answer; check the network") from None
    except google.auth.exceptions.GoogleAuthError as error:
        raise InputError(
            f"Google's credentials do not work: {_line(error)}; gcloud auth application-default login"
        ) from None
    except google.api_core.exceptions.GoogleAPICallError as error:
        code, words = getattr(error.code, "value", error.code), _line(re.sub(r"^POST \S+: ", "", error.message))
        doubt = "" if isinstance(code, int) and code < 500 else _DOUBT
        advice = _ADVICE.get(code, "").format(project=_project(request), location=request.location)
        raise InputError(f"Vertex AI does not take the job ({code}): {words}{advice}{doubt}") from None
    except requests.exceptions.RequestException as error:
        raise InputError(f"{address(request, endpoint)}: no answer ({type(error).__name__}){_DOUBT}") from None
    except google.protobuf.json_format.ParseError:
        raise InputError(f"{address(request, endpoint)}: the answer is no job; is a proxy between?{_DOUBT}") from None
    except KeyboardInterrupt:
        terminal.say(f"the request was on its way{_DOUBT}")
        raise


def _project(request: Request) -> str:
    return request.parent.split("/")[1]


_ADVICE = {
    401: "; gcloud auth application-default login, and try again",
    403: "; your account needs the role roles/aiplatform.user in {project}, and Vertex AI must be enabled there",
    404: "; is {project} the project, and does {location} have Vertex AI and the machine?",
    429: "; no quota is left in {location} for this machine: ask for it in the console, or take another region",
}
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

"""Serves a review on this machine until it is interrupted, and tells what it came to."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from data_pipeline.review import log
from data_pipeline.review.corpus import corpus_folder
from data_pipeline.review.current import CurrentReview
from data_pipeline.review.session import Options, checked_name
from data_pipeline.values import quoted
from vlm_jax.errors import InputError

if TYPE_CHECKING:
    import uvicorn

HOST = "127.0.0.1"


def check(options: Options, port: int) -> None:
    """Raises InputError, with every error, where these cannot be."""
    errors = []
    if not 0 <= options.shared <= 1:
        errors.append(f"--shared={options.shared:g}: wanted a share from 0 to 1")
    if options.sample < 0:
        errors.append(f"--sample={options.sample}: wanted 0 or more")
    if not 0 <= port <= 65535:
        errors.append(f"--port={port}: wanted 0 to 65535")
    if options.reviewer:
        try:
            checked_name(options.reviewer)
        except InputError as error:
            errors.append(f"--reviewer={quoted(options.reviewer)}: {error}")
    if errors:
        raise InputError(errors)


def serve(corpus: str | Path, options: Options, *, port: int, say: Callable[[str], None]) -> list[str]:
    """Serves the page until Ctrl-C.

    Args:
      port: 0 for one that is free.
      say: takes lines for the person at the keyboard, the page's address among them.

    Returns:
      The summary of the review, as lines.

    Raises:
      InputError: settings that cannot be, a corpus or log that cannot be read, another server on it, a port in use, or
        the packages are not installed.
    """
    check(options, port)
    try:
        import uvicorn  # noqa: F401 - told before the corpus is read

        from data_pipeline.review.app import review_app
    except ImportError as error:
        raise InputError(
            f"the review page needs starlette and uvicorn ({error}): pip install 'vlm-jax[review]'"
        ) from None
    folder = corpus_folder(corpus)
    with log.opened(folder) as actions, _listening(port) as listening:
        if actions.torn:
            say(f"{actions.path}: the last line was cut off by a crash and is left out: nobody was told it was saved")
        current = CurrentReview(folder, actions, options)
        for line in current.summary():
            say(line)
        name = f"?reviewer={quote(options.reviewer)}" if options.reviewer else ""
        address = f"http://{HOST}:{listening.getsockname()[1]}/{name}"
        say(f"{len(current.review.items):,} records to review at {address} (Ctrl-C ends)")
        try:
            uvicorn_server(review_app(current)).run(sockets=[listening])
        except KeyboardInterrupt:
            pass  # how a session ends
        return current.summary()


def uvicorn_server(app) -> "uvicorn.Server":
    """A server without a log of requests; it takes its sockets when it runs."""
    import uvicorn

    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=3,
    )
    return uvicorn.Server(config)


def _listening(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(128)  # who follows the address as soon as it is said waits a moment instead of being refused
    except OSError as error:
        listening.close()
        raise InputError(f"--port={port}: cannot be listened on ({error.strerror}); give another") from None
    return listening

"""The review server in a thread, as scripts/review_corpus.py runs it."""

import contextlib
import socket
import threading
import time
from pathlib import Path

from data_pipeline.review import log
from data_pipeline.review.app import review_app
from data_pipeline.review.current import CurrentReview
from data_pipeline.review.server import uvicorn_server
from data_pipeline.review.session import Options


@contextlib.contextmanager
def serving(folder: Path, options: Options | None = None, port: int = 0):
    """Yields (address, the review)."""
    with log.opened(folder) as actions, socket.create_server(("127.0.0.1", port)) as listening:
        current = CurrentReview(folder, actions, options or Options())
        server = uvicorn_server(review_app(current))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            until = time.monotonic() + 20
            while not server.started:
                assert thread.is_alive() and time.monotonic() < until, "the server did not start"
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", current.review
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive(), "the server did not stop"

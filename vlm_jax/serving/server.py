"""The application on a socket, until Ctrl-C."""

import contextlib
import socket
import warnings

import PIL.Image
import uvicorn

from vlm_jax.errors import InputError
from vlm_jax.serving.app import Application

CLOSING_SECONDS = 5
"""That answers may take to end once the server is stopped."""
LETTING_GO_SECONDS = 2
"""That the model's thread has then, to end what it computes."""


def listening(host: str, port: int) -> socket.socket:
    """A socket there; with port 0 at a free one. To be had before a model is loaded, which takes long.

    Raises:
      InputError: no such address on this machine, or a port that is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(128)
        except OSError:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen at {host}, port {port}: {reason}; give another --port or --host") from None
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Server(uvicorn.Server):
    """Of one application: ends what it is answering when it is stopped, so that nobody waits for it."""

    def __init__(self, application: Application):
        super().__init__(
            uvicorn.Config(
                application,
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                interface="asgi3",
                access_log=False,
                log_config=None,
                log_level="critical",  # the application tells by itself what there is to tell
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=CLOSING_SECONDS,
            )
        )
        self._application = application

    async def startup(self, sockets=None) -> None:
        self._application.start()
        await super().startup(sockets)

    async def shutdown(self, sockets=None) -> None:
        self._application.close()
        await super().shutdown(sockets)


def serve(application: Application, listener: socket.socket) -> None:
    """Answers until Ctrl-C, which is the normal end, and waits for the model's thread to let go of the model.

    A second Ctrl-C drops what the thread computes, and so does time: reading a long prompt cannot be interrupted. The
    process is then to end without the interpreter's tidying, which would crash that thread.
    """
    with contextlib.suppress(KeyboardInterrupt), warnings.catch_warnings():
        # Of too large an image Pillow warns the console; the request is told (`processing.images` holds the limit).
        warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        Server(application).run([listener])
    with contextlib.suppress(KeyboardInterrupt):
        application.close(LETTING_GO_SECONDS)

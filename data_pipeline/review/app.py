"""The review page over HTTP: the page's files, records as JSON, images by key and number, and one way to act.

What may reach it is `guard`'s, what is done `session`'s.
"""

import errno
import functools
import io
from pathlib import Path

import PIL.Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from data_pipeline.records import images_of
from data_pipeline.review.corpus import is_inside
from data_pipeline.review.current import CurrentReview
from data_pipeline.review.guard import guarded, json_body
from data_pipeline.review.session import Conflict, Review
from vlm_jax.errors import InputError
from vlm_jax.processing.images import header, open_image

_PAGE = Path(__file__).with_name("page")
_FILES = {"/": "index.html", **{f"/{name}": name for name in ("record.js", "review.js", "review.css")}}
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_BROWSERS_SHOW = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
"""Formats sent as they are; others that Pillow reads are sent as PNG."""


def review_app(current: CurrentReview) -> ASGIApp:
    """The ASGI app of a review."""
    routes = [Route(path, functools.partial(_file, name), name=name) for path, name in _FILES.items()]
    routes += [
        Route("/favicon.ico", _nothing),
        Route("/api/start", _start),
        Route("/api/item", _item),
        Route("/api/action", _action, methods=["POST"]),
        Route("/image/{key}/{number:int}", _image),
    ]
    refused = {InputError: _refused, Conflict: _conflict, OSError: _unwritten, HTTPException: _http_error}
    app = Starlette(routes=routes, exception_handlers=refused)
    app.router.redirect_slashes = False
    app.state.current = current
    return guarded(app)


async def _file(name: str, request: Request) -> Response:
    path = _PAGE / name
    return Response(path.read_bytes(), media_type=_TYPES[path.suffix])


async def _nothing(request: Request) -> Response:
    return Response(status_code=204)


async def _start(request: Request) -> Response:
    return JSONResponse(_review(request).start())


async def _item(request: Request) -> Response:
    asked = request.query_params
    found = _review(request).step(asked.get("reviewer", ""), asked.get("key", ""), asked.get("step", "here"))
    return JSONResponse(found)


async def _action(request: Request) -> Response:
    return JSONResponse(_review(request).act(await json_body(request)))


def _image(request: Request) -> Response:
    """An image. Starlette runs what is not async on a thread, so that decoding keeps nobody waiting."""
    # As it was read last: only the thread of the other addresses may read the corpus again.
    review, number = request.app.state.current.review, request.path_params["number"]
    item = review.by_key.get(request.path_params["key"])
    images = images_of(item.record) if item else []
    if number >= len(images):
        raise HTTPException(404, "no such image")
    image = images[number]
    # Looked at again: a file may have become a link since the corpus was read.
    if not isinstance(image, bytes) and not is_inside(image, review.folder):
        raise HTTPException(404, "the image is not in the corpus")
    try:
        content, media_type = _for_browsers(image)
    except InputError as error:
        raise HTTPException(404, str(error).removeprefix(f"{review.folder}/")) from None
    return Response(content, media_type=media_type)


def _for_browsers(image: str | bytes) -> tuple[bytes, str]:
    """(a file that browsers show, its media type). Raises InputError where it is no image."""
    try:
        content = image if isinstance(image, bytes) else _read(Path(image))
        with header(content) as opened:
            if opened.format in _BROWSERS_SHOW:
                return content, PIL.Image.MIME[opened.format]
    except (OSError, PIL.UnidentifiedImageError):
        pass  # `open_image` says what is wrong
    file = io.BytesIO()
    open_image(image).save(file, "PNG")
    return file.getvalue(), "image/png"


def _read(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


async def _refused(request: Request, error: Exception) -> Response:
    return _error(400, "; ".join(getattr(error, "lines", [str(error)])))


async def _conflict(request: Request, error: Exception) -> Response:
    return _error(409, str(error))


async def _unwritten(request: Request, error: Exception) -> Response:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full; free some room" if full else getattr(error, "strerror", None) or str(error)
    return _error(507, f"Nothing was saved: {reason}")


async def _http_error(request: Request, error: Exception) -> Response:
    return (
        _error(error.status_code, error.detail, error.headers) if isinstance(error, HTTPException) else _error(500, "")
    )


def _error(status: int, text: str, headers=None) -> Response:
    return JSONResponse({"error": text}, status_code=status, headers=headers)


def _review(request: Request) -> Review:
    return request.app.state.current()

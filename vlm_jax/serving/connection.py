"""A request from its first byte on: it has a place, and its client is there as long as it is answered."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request

from vlm_jax.serving.places import Place, Places, check_headers
from vlm_jax.serving.refusals import closing


async def in_a_place(places: Places, scope, receive, answer: Callable[[Place], Awaitable[None]]) -> None:
    """Takes a request in and has it answered; a client that goes away, at whatever moment, frees its place.

    Raises:
      Refused: there is no place, or the request is too large, late, or not JSON as it is.
    """
    request = Request(scope, receive)
    check_headers(request.headers)
    with places.place() as place:
        try:
            await place.read(request.headers.get("content-length"), request.stream())
        except ClientDisconnect:
            return
        await _while_connected(receive, answer(place))


async def _while_connected(receive, work: Awaitable[None]) -> None:
    """Awaits it; cancels it once the client is gone. To be called when the request's body has been read."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        is_gone = tasks[1].done()
        for task in tasks:
            task.cancel()
        (error, _) = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(error, asyncio.CancelledError) and not is_gone:
        raise closing()
    if isinstance(error, Exception):
        raise error

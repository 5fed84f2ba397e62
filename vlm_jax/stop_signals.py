"""Signals that ask a program to stop: noted, where what is at work decides when to, or raised as Ctrl-C is.

In another thread than the main one neither happens: a program that works in threads asks them to stop by itself.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def noted(
    numbers: Sequence[int] = ASKING, *, first: Callable[[], None] = lambda: None, insists: bool = False
) -> Iterator[list[int]]:
    """A list that takes the signals that come while the block runs.

    Args:
      first: called with the first of them, in the signal's handler.
      insists: a Ctrl-C that is not the first raises KeyboardInterrupt, as it would have without this.
    """
    signals: list[int] = []

    def note(number, frame):
        if signals and insists and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not signals:
            first()
        signals.append(number)

    with _handled(numbers, note):
        yield signals


@contextlib.contextmanager
def as_ctrl_c(numbers: Sequence[int] = (signal.SIGTERM,)) -> Iterator[None]:
    """While the block runs, these signals do what Ctrl-C does there; where it is ignored, raise KeyboardInterrupt."""

    def interrupt(number, frame):
        handler = signal.getsignal(signal.SIGINT)
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)

    with _handled(numbers, interrupt):
        yield


@contextlib.contextmanager
def _handled(numbers: Sequence[int], handler: Callable[[int, Any], None]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        numbers = ()  # Python hands signals to the main thread alone, whose they stay
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)

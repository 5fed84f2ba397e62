"""Signals that ask a program to stop, noted instead of raised: what is at work decides when it is a good moment."""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence

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

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

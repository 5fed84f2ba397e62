"""How far something long is: a bar on a terminal, elsewhere a line a minute."""

import os
import sys
import time
from collections.abc import Iterable, Iterator

from vlm_jax import terminal

SECONDS_A_LINE, FIRST_SECONDS = 60, 10
"""Between two lines where there is no terminal, and before the first."""


def shown(items: Iterable, total: int, *, unit: str) -> Iterator:
    """Passes items on and shows on standard error how many of `total` there were and how long the rest takes."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        # A terminal that does not know its size would show nothing.
        size = {} if os.get_terminal_size(sys.stderr.fileno()).columns else {"ncols": 80, "nrows": 24}
        yield from tqdm(items, total=total, unit=unit, **size)
        return
    begun = time.monotonic()
    last = begun + FIRST_SECONDS - SECONDS_A_LINE
    for number, item in enumerate(items, start=1):
        now = time.monotonic()
        if now - last >= SECONDS_A_LINE:
            last = now
            left = tqdm.format_interval((now - begun) / number * (total - number))
            terminal.say(f"{number} of {total} {unit}s, {left} left")
        yield item

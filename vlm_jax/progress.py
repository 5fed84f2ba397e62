"""How far something long is: a bar on a terminal, elsewhere a line a minute."""

import sys
import time
from collections.abc import Iterable, Iterator

from vlm_jax import terminal

SECONDS_A_LINE = 60
"""Between two lines where there is no terminal."""


def shown(items: Iterable, total: int, *, unit: str) -> Iterator:
    """Passes items on and shows on standard error how many of `total` there were and how long the rest takes."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, total=total, unit=unit)
        return
    begun = last = time.monotonic()
    for number, item in enumerate(items, start=1):
        now = time.monotonic()
        if now - last >= SECONDS_A_LINE:
            last = now
            left = tqdm.format_interval((now - begun) / number * (total - number))
            terminal.say(f"{number} of {total} {unit}s, {left} left")
        yield item

"""The one exception whose message is written for the person at the keyboard.

Scripts print it without a traceback and exit with status 1; library callers catch it like any ValueError.
"""

import contextlib
from collections.abc import Iterator, Sequence


class InputError(ValueError):
    """One or several faults in what a person gave: a file, a record, a setting.

    Every fault is one line that says what is wrong, where, and what to do. Checks collect all they find and raise
    once, so that nobody mends a data set one run at a time.
    """

    def __init__(self, faults: str | Sequence[str]):
        self.faults: list[str] = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


@contextlib.contextmanager
def gathered(faults: list[str]) -> Iterator[None]:
    """Adds the faults of an InputError to a list instead of raising, so that independent checks all get to speak."""
    try:
        yield
    except InputError as error:
        faults += error.faults

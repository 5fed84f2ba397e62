"""The one exception whose message is written for the person at the keyboard.

Scripts print it without a traceback and exit with status 1; library callers catch it like any ValueError.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator, Sequence


class InputError(ValueError):
    """One or several errors in what a person gave: a file, a record, a setting.

    Every error is one line that says what is wrong, where, and what to do. Checks collect all they find and raise
    once, so that nobody mends a data set one run at a time.
    """

    def __init__(self, errors: str | Sequence[str]):
        self.lines: list[str] = [errors] if isinstance(errors, str) else list(errors)
        super().__init__("\n".join(self.lines))


@contextlib.contextmanager
def gathered(errors: list[str]) -> Iterator[None]:
    """Adds the errors of an InputError to a list instead of raising, so that independent checks all get to speak."""
    try:
        yield
    except InputError as error:
        errors += error.lines


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error line about a name that is not known."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"

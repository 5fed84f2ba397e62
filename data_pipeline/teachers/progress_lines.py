"""How far a teacher's answers are, for a person: lines on the console."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from data_pipeline.teachers.sending import Progress


@dataclass
class ProgressLines:
    """How far a stage is, how long it takes, and what was spent: a line every minute, on a terminal every second."""

    say: Callable[[str], None]
    _begun: float = 0.0
    _last: float = field(default_factory=time.monotonic)
    _of: str = ""

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.stage != self._of:
            self._of, self._begun = progress.stage, now
        every = 1.0 if sys.stderr.isatty() else 60.0
        if now - self._last < every:
            return
        self._last = now
        left = (now - self._begun) / progress.done * (progress.total - progress.done)
        minutes, seconds = divmod(round(left), 60)
        self.say(
            f"{progress.stage}: {progress.done:,} of {progress.total:,} answers, {minutes}:{seconds:02} left, "
            f"${progress.spent:.2f} spent"
        )

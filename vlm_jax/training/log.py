"""What a run tells: `metrics.jsonl`, a progress bar with ETA on a terminal, lines elsewhere."""

import json
import sys
import time
from pathlib import Path

from tqdm import tqdm


class RunLog:
    """One line of metrics a step, on disk and on the console."""

    def __init__(self, path: Path, *, steps: int, done: int, every: int):
        """`done` steps are already behind this run; lines of later steps, which a resumed run repeats, are dropped."""
        self._steps, self._every = steps, every
        kept = _lines_until(path, done)
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.write_text("".join(kept), encoding="utf-8")
        unfinished.rename(path)
        self._file = path.open("a", encoding="utf-8")
        self._started, self._first = time.perf_counter(), done
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True, file=sys.stderr)

    def start_clock(self) -> None:
        """Called when the step is compiled, so that the time left does not count compiling again."""
        self._started = time.perf_counter()
        if self._bar is not None:
            self._bar.start_t = self._bar._time()

    def step(self, step: int, metrics: dict[str, float | None]) -> None:
        """Notes a finished step (counted from 1); its loss is None where it was skipped."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        loss = "not finite" if metrics["loss"] is None else f"{metrics['loss']:.4f}"
        shown = f"loss {loss}, {metrics['tokens_per_second']:,.0f} tokens/s, padding {metrics['padding']:.0%}"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step - self._bar.n)
        elif step % self._every == 0 or step in (1, self._steps):
            elapsed = time.perf_counter() - self._started
            left = elapsed / max(step - self._first, 1) * (self._steps - step)
            self.say(f"step {step}/{self._steps}  {shown}  {_clock(left)} left")

    def say(self, line: str) -> None:
        """A line for the person, above the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        self._file.close()
        if self._bar is not None:
            self._bar.close()


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.is_file():
        return []
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except ValueError:  # the line a kill cut off
            continue
    return kept


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"

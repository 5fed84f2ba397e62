"""What a run tells: `metrics.jsonl`, TensorBoard events, a progress bar with ETA on a terminal, lines elsewhere."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from vlm_jax import terminal
from vlm_jax.errors import InputError
from vlm_jax.training.events import Events

CURVES = (
    "loss",
    "validation_loss",
    "validation_score",
    "learning_rate",
    "gradient_norm",
    "tokens_per_second",
    "text_tokens_per_second",
    "visual_tokens_per_second",
    "mfu",
    "data_wait",
    "memory_gib",
    "padding",
    "patch_padding",
)
"""What of a step's metrics TensorBoard draws, besides learning rates by part."""


STILL = 30.0
"""Seconds between two lines that say that something long goes on."""


class Console:
    """Lines for the person at the keyboard, kept in a file as well once there is a folder for it."""

    def __init__(self, *, silent: bool = False):
        """`silent`: nothing is said and nothing written: this is not the process that does."""
        self.silent = silent
        self.bar: tqdm | None = None
        self._before: list[str] = []
        self._file = None

    def say(self, line: str) -> None:
        """A line for the person, above the bar."""
        if self.silent:
            return
        line = terminal.safe(line)
        if self.bar is not None:
            self.bar.write(line, file=sys.stderr)
        else:
            terminal.say(line)
        self.note(line)

    def note(self, line: str) -> None:
        """A line for the file alone."""
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
        elif not self.silent:
            self._before.append(line)

    def progress(self, what: str, chunks: Iterable, *, total: int) -> Iterable:
        """Passes chunks on and shows how far they are, where there is a terminal to show it on."""
        shown = sys.stderr.isatty() and not self.silent
        return tqdm(chunks, total=total, desc=what, unit="k", leave=False, disable=not shown)

    @contextlib.contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Adds what was said before, and is until the end, to a file; also why the run ended, where it does so here."""
        if self.silent:
            yield
            return
        with path.open("a", encoding="utf-8") as self._file:
            self.note(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}")
            for line in self._before:
                self.note(line)
            try:
                yield
            except InputError as error:
                for line in error.lines:
                    self.note(f"error: {line}")
                raise
            finally:
                self._file, self._before = None, []


def _columns() -> int:
    """Of the terminal on standard error; 0 where it does not say."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 0


class RunLog:
    """One line of metrics a step, on disk and on the console."""

    def __init__(self, workdir: Path, *, steps: int, done: int, every: int, console: Console):
        """`done` steps are already behind this run; lines of later steps, which a resumed run repeats, are dropped.

        Args:
          console: says what is said; where it is silent, nothing is written.
        """
        self._steps, self._every, self._silent, self._console = steps, every, console.silent, console
        self._started, self._first = time.perf_counter(), done
        self._bar = self._file = self._validation = self._events = None
        self._skipped = workdir / "skipped.jsonl"
        if self._silent:
            return
        self._file = _continued(workdir / "metrics.jsonl", done)
        if (earlier := workdir / "held_out.jsonl").is_file():  # of a run that an earlier version began
            earlier.rename(workdir / "validation.jsonl")
        self._validation = _continued(workdir / "validation.jsonl", done)
        if self._skipped.exists():
            _continued(self._skipped, done).close()
        if sys.stderr.isatty():
            # Some terminals say that they have no columns: a bar as wide as they say would be none.
            follows = _columns() > 0
            self._bar = tqdm(
                total=steps,
                initial=done,
                unit="step",
                dynamic_ncols=follows,
                ncols=None if follows else 80,
                file=sys.stderr,
            )
            console.bar = self._bar
        self._events_folder = workdir / "tensorboard"

    def start_clock(self) -> None:
        """Called when the step is compiled, so that the time left does not count compiling again."""
        self._started = time.perf_counter()
        if self._bar is not None:
            self._bar.start_t = self._bar._time()

    def step(self, step: int, metrics: dict[str, float | None]) -> None:
        """Notes a finished step (counted from 1); its loss is None where it was skipped."""
        if self._silent:
            return
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        self._draw(step, metrics)
        loss = "not finite" if metrics["loss"] is None else f"{metrics['loss']:.4f}"
        epoch = f"epoch {metrics['epoch']:.2f}, " if metrics.get("epoch") is not None else ""
        rate = f", learning rate {metrics['learning_rate']:.2e}"
        shown = (
            f"{epoch}loss {loss}{rate}, {metrics['tokens_per_second']:,.0f} tokens/s, padding {metrics['padding']:.0%}"
        )
        if metrics.get("mfu") is not None:
            shown += f", MFU {metrics['mfu']:.0%}"
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(step - self._bar.n)
        if step % self._every == 0 or step in (1, self._steps):
            elapsed = time.perf_counter() - self._started
            left = elapsed / max(step - self._first, 1) * (self._steps - step)
            line = f"step {step}/{self._steps}  {shown}  {tqdm.format_interval(left)} left"
            if self._bar is not None:
                self._console.note(line)
            else:
                self.say(line)

    def skipped(self, step: int, records: list[str]) -> None:
        """Notes a step that was skipped, and what its batch was made of."""
        self.say(f"step {step} is skipped: its loss or gradient is not finite")
        if not self._silent:
            with self._skipped.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "records": records}, ensure_ascii=False) + "\n")

    def validation(self, step: int, loss: float, score: float | None = None, metric: str = "") -> None:
        """Notes the validation loss after a step, and the score of answers by a metric where there is one."""
        if self._silent:
            return
        figures = {"loss": loss} if score is None else {"loss": loss, "score": score, "metric": metric}
        self._validation.write(json.dumps({"step": step, **figures}) + "\n")
        self._validation.flush()
        self._draw(step, {"validation_loss": loss, "validation_score": score})
        answers = "" if score is None else f", {metric} score of answers {score:.1%}"
        self.say(f"step {step}: validation loss {loss:.4f}{answers}")

    def _draw(self, step: int, metrics: dict[str, float | None]) -> None:
        if self._events is None:
            # At the first step: loading takes a moment, and a run that is refused leaves no empty file behind.
            self._events = Events(self._events_folder, purge_from=step, say=self.say)
        drawn = {
            name: value
            for name, value in metrics.items()
            if value is not None and (name in CURVES or name.startswith("learning_rate/"))
        }
        self._events.scalars(step, drawn)

    def say(self, line: str) -> None:
        """A line for the person, above the bar."""
        self._console.say(line)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Says now and then for how long something goes on already."""
        began, ended = time.perf_counter(), threading.Event()

        def repeat() -> None:
            while not ended.wait(STILL):
                self.say(f"{what}, {time.perf_counter() - began:.0f} s so far …")

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def close(self) -> None:
        self._console.bar = None
        for resource in (self._bar, self._events, self._file, self._validation):
            if resource is not None:
                resource.close()


def _continued(path: Path, done: int):
    """The file, opened to go on after the lines of the steps that are done."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text("".join(_lines_until(path, done)), encoding="utf-8")
    unfinished.rename(path)
    return path.open("a", encoding="utf-8")


def _lines_until(path: Path, step: int) -> list[str]:
    if not path.is_file():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                lines.append(line)
        except ValueError:  # the line a kill cut off
            continue
    return lines

"""A whole sweep as one function: every cell trained and evaluated, into one table and one plot.

`scripts/sweep.py` calls it, and so may any program: nothing here reads flags. A cell is a process of its own: one that
is killed for its memory does not end the sweep, what it held of an accelerator is free for sure once it is gone, and
what it says goes into its own log.
"""

import dataclasses
import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from data_pipeline.config_files import Load
from data_pipeline.sweep_cells import Folder, folders_of
from vlm_jax import locations, stop_signals, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_text
from vlm_jax.evaluation import sweep_report

LOG = "cell.log"
STOPPING = (*stop_signals.ASKING, signal.SIGHUP)
TAIL = 6
"""Lines of the log of a failed cell that are shown."""


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a sweep.

    Attributes:
      folders: its cells, with the figures of those that are finished.
      table: of what is finished, for a terminal; table.md holds it.
      failed: {name of a cell: reason}.
      stopped: whether a person asked it to stop; the same call goes on.
    """

    folders: Sequence[Folder]
    table: str
    failed: dict[str, str]
    stopped: bool


class _Failed(Exception):
    """The program of a cell ended with an error; the message is the end of its log."""


def run(
    config: ConfigDict,
    output: str | Path,
    *,
    program: Sequence[str],
    load: Load,
    say: Callable[[str], None] = terminal.say,
) -> Result:
    """Runs every cell that is not finished, one after another, and writes the tables and the plot of those that are.

    A cell is begun where it was stopped. One that fails is told, and the others go on.

    Args:
      config: of the form of `vlm_jax.evaluation.sweep.sweep_config`.
      output: the folder of all that is made.
      program: what a cell is started with: Python and scripts/train_and_evaluate.py, or what takes its flags.
      load: reads the config file of the training.
      say: called with what happens, a line each.

    Raises:
      InputError: of `sweep_cells.folders_of`, before any cell is run; or another process sweeps in this folder.
    """
    output = Path(output)
    folders = folders_of(config, output, program=program, load=load)
    (output / "cells").mkdir(parents=True, exist_ok=True)
    # A cell that outlives this process holds the lock on.
    with alone(output, "sweeping") as lock, stop_signals.noted(STOPPING) as signals:
        failed = _run_cells(folders, lock, signals, lambda: _write_report(config, folders, output), say)
        stopped = bool(signals)
    if stopped:
        say("stopped; the same command goes on from here")
    table = terminal.safe((output / "table.md").read_text(encoding="utf-8"))
    return Result(folders, table, failed, stopped)


def _run_cells(
    folders: Sequence[Folder], lock: int, signals: list[int], write: Callable[[], None], say: Callable[[str], None]
) -> dict[str, str]:
    """Runs what is not finished, until asked to stop; {name: reason} of what failed."""
    failed: dict[str, str] = {}
    took: list[float] = []
    left = [folder for folder in folders if not folder.finished]
    if len(left) < len(folders):
        say(f"{len(folders) - len(left)} of {len(folders)} cells are finished already")
    write()
    for number, folder in enumerate(left, start=1):
        title = f"[{number + len(folders) - len(left)}/{len(folders)}] {folder.cell.title}"
        say(f"{title}: begun; it tells more in {folder.path / LOG}")
        begun, whole = time.monotonic(), not folder.path.exists()
        try:
            _run_cell(folder, lock, signals, say)
        except _Failed as error:
            lines = str(error).splitlines()
            # Where there are several errors, the last line counts them: the first says more.
            failed[folder.cell.name] = next((line for line in lines if line.startswith("error: ")), lines[-1])
            say(f"{title}: FAILED\n" + "\n".join(f"    {line}" for line in lines))
        if folder.finished:
            seconds = time.monotonic() - begun
            took += [seconds] if whole else []
            remaining = sum(took) / len(took) * (len(left) - number) if took else 0
            ahead = f"; about {sweep_report.duration(remaining)} left" if took else ""
            score = f"{folder.state['mean']:.1%} of {folder.state['n']}"
            say(f"{title}: {score}, in {sweep_report.duration(seconds)}{ahead}")
            write()
        if signals:
            break
    return failed


def _run_cell(folder: Folder, lock: int, signals: list[int], say: Callable[[str], None]) -> None:
    """Trains and evaluates, and goes on from where either was stopped. Returns early when asked to stop.

    Raises:
      _Failed: the program did.
    """
    folder.path.mkdir(exist_ok=True)
    if not _run_program(folder.command, folder.path / LOG, lock, signals, say):
        return
    lines = (folder.path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    summary = read_json(folder.path / "evaluation" / "report.json")
    folder.keep(
        train_seconds=sum(json.loads(line)["seconds"] for line in lines),
        steps=len(lines),
        **{key: summary[key] for key in ("mean", "low", "high", "n")},
    )


def _run_program(words: list[str], log: Path, lock: int, signals: list[int], say: Callable[[str], None]) -> bool:
    """Runs a program as a person would. False when it was stopped because the sweep is.

    It has a session of its own, so that a Ctrl-C in the terminal reaches it once, through here, and it saves; a second
    one ends it.

    Raises:
      _Failed: it ended with an error.
    """
    with log.open("a+b") as file:
        start = file.tell()
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, pass_fds=(lock,), start_new_session=True
        )
        sent = 0
        while process.poll() is None:
            if len(signals) > sent:
                sent += 1
                if sent == 1:
                    say("stopping: the cell saves what it has; a second Ctrl-C ends it at once")
                    process.send_signal(signal.SIGINT)
                else:
                    os.killpg(process.pid, signal.SIGKILL)
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                continue
        if process.returncode == 0 or sent:
            return process.returncode == 0
        file.seek(start)
        # Progress bars write over their line.
        written = file.read().decode("utf-8", errors="replace").replace("\r", "\n").split("\n")
    lines = deque((line for line in written if line.strip()), maxlen=TAIL)
    name = Path(words[1]).name
    if process.returncode < 0:
        lines.append(f"{name} was ended by {signal.Signals(-process.returncode).name}")
    raise _Failed("\n".join(lines) or f"{name} ended with status {process.returncode}")


def _write_report(config: ConfigDict, folders: Sequence[Folder], output: Path) -> None:
    """results.jsonl, the tables and, where there is something to draw, the plot, of what is finished so far."""
    figures = ("mean", "low", "high", "n", "steps", "train_seconds")
    results = {}
    for folder in folders:
        if folder.finished:
            named = {"cell": folder.cell.name, "axes": folder.cell.labels, "seed": folder.cell.seed}
            changed = {key: folder.settings.get(key, value) for key, value in folder.cell.settings.items()}
            results[folder.cell.name] = {**named, **{key: folder.state[key] for key in figures}, "settings": changed}
    lines = [json.dumps(result, ensure_ascii=False) + "\n" for result in results.values()]
    write_text(output / "results.jsonl", "".join(lines))
    rows = sweep_report.rows_of([folder.cell for folder in folders], results)
    benchmark = ", ".join(Path(name).name for name in locations.named_in(config.benchmark))
    title = f"{Path(config.train).stem} on {benchmark}, {config.metric} score"
    write_text(output / "table.md", sweep_report.table(rows, title=title))
    write_text(output / "table.csv", sweep_report.comma_separated(rows))
    if results:
        unfinished = output / ".plot.unfinished.png"
        sweep_report.plot(rows, unfinished, x_axis=config.x_axis, title=title, score=config.metric)
        unfinished.rename(output / "plot.png")

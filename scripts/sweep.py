"""Trains and evaluates every cell of a grid, into one table and one plot.

    .venv/bin/python scripts/sweep.py --config=configs/ablations/scaling.py --output=runs/scaling \
        --config.set.data.path=mine.jsonl --config.benchmark=held_out.jsonl

A cell is a run of scripts/train_and_evaluate.py in a folder of its own, --output/cells/NAME, with its log. table.md,
table.csv, results.jsonl and plot.png are made anew whenever a cell is finished. Interrupted or killed, the same command
goes on: what is finished is not run again. A cell that fails is told with the end of its log, and the others go on.
Seeds and labels may be added later; cells that were made with other settings are refused.
"""

import interrupts  # noqa: F401 - first of all

import dataclasses
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

import command_line
from vlm_jax import locations, output_folder, stop_signals, terminal
from vlm_jax.checkpoint.files import alone, read_json, write_json, write_text
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import sweep, sweep_report

flags.DEFINE_string("output", None, "folder of all that is made", required=True)
flags.DEFINE_boolean("dry_run", False, "print the cells and their commands, and run nothing")

SCRIPTS = Path(__file__).resolve().parent
LOG = "cell.log"
STOPPING = (*stop_signals.ASKING, signal.SIGHUP)
TAIL = 6
"""Lines of the log of a failed cell that are shown."""


@dataclasses.dataclass
class Folder:
    """A cell and what there is of it."""

    cell: sweep.Cell
    path: Path
    command: list[str]
    settings: dict[str, Any]
    """What decides its score."""

    def __post_init__(self):
        record = self.path / "cell.json"
        self.state: dict[str, Any] = read_json(record) if record.exists() else {}
        """What decided its score, and the figures of its result, once it is finished."""

    @property
    def finished(self) -> bool:
        return "mean" in self.state

    def keep(self, **figures: Any) -> None:
        self.state = {"settings": self.settings, **figures}
        write_json(self.path / "cell.json", self.state)


class Failed(Exception):
    """A script of a cell ended with an error; the message is the end of its log."""


def main(config: ConfigDict) -> None:
    output = Path(flags.FLAGS.output)
    output_folder.check(output, f"--output={output}", owner="a sweep's", marks=("cells",))
    folders = folders_of(config, output)
    check_finished(folders, output)
    if flags.FLAGS.dry_run:
        for folder in folders:
            state = "finished" if folder.finished else "begun" if folder.path.exists() else "new"
            print(f"{folder.cell.title} ({state})\n  {shlex.join(folder.command)}")
        return
    (output / "cells").mkdir(parents=True, exist_ok=True)
    # A cell that outlives this process holds the lock on.
    with alone(output, "sweeping") as lock, stop_signals.noted(STOPPING) as signals:
        failed = run_cells(folders, lock, signals, lambda: write_report(config, folders, output))
        stopped = bool(signals)
    if stopped:
        terminal.say("stopped; the same command goes on from here")
        sys.exit(130)
    print(terminal.safe((output / "table.md").read_text(encoding="utf-8")), end="")
    if failed:
        count = f"{len(failed)} of {len(folders)} cells failed; the same command tries them again"
        raise InputError([count, *(f"{name}: {reason}" for name, reason in failed.items())])


def folders_of(config: ConfigDict, output: Path) -> list[Folder]:
    """Every cell with its commands, once all of the sweep's settings are known to be good.

    Raises:
      InputError: with every error of the sweep, of what it sets in its training, and of its benchmark.
    """
    from vlm_jax.training.config import check_config

    sweep.check_form(config)
    command_line.load_config(config.train)
    errors, wrong, trainings = sweep.errors_of(config), [], {}
    for place, changed in sweep.places(config).items():
        try:
            command_line.load_config(config.train, overrides(changed))
        except InputError as error:
            wrong += [f"{place}: {line.removeprefix('--config.')}" for line in error.lines]
    for cell in sweep.cells_of(config) if not wrong else []:
        trainings[cell] = command_line.load_config(config.train, overrides(cell.settings))
        with gathered(wrong):
            check_config(trainings[cell])
    errors += wrong
    with gathered(errors):
        benchmark = digests(config.benchmark) if config.benchmark else {}
    if errors:
        raise InputError(list(dict.fromkeys(errors)))
    evaluation = {"benchmark": benchmark, "metric": config.metric, "max_new_tokens": config.max_new_tokens}
    folders = []
    for cell, training in trainings.items():
        path = output / "cells" / cell.name
        changed = [f"--config.{key}={value}" for key, value in overrides(cell.settings)]
        words = [
            sys.executable,
            os.path.relpath(SCRIPTS / "train_and_evaluate.py"),
            f"--config={config.train}",
            f"--workdir={path / 'run'}",
            *changed,
            f"--model={path / 'run'}",
            f"--benchmark={config.benchmark}",
            f"--output={path / 'evaluation'}",
            f"--metric={config.metric}",
            f"--max_new_tokens={config.max_new_tokens}",
        ]
        settings = {**deciding(training), **evaluation}
        folders.append(Folder(cell, path, words, json.loads(json.dumps(settings))))
    return folders


def overrides(changed: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings as the command line has them."""

    def text(value: Any) -> str:
        return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)

    return [(key, text(value)) for key, value in changed.items()]


def digests(benchmark: str) -> dict[str, str | None]:
    """{name: digest} of the files of a benchmark that can be opened; None for what is no single file here."""
    from data_pipeline import sources

    errors: list[str] = []
    by_name = {}
    for name in locations.named_in(benchmark):
        with gathered(errors):
            sources.open_source(name, training=False)
        path = Path(name)
        by_name[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else None
    if errors:
        raise InputError(errors)
    return by_name


def deciding(training: ConfigDict) -> dict[str, Any]:
    """The settings of a training that decide what is learned; its data by names and lengths, as they may be large."""
    from vlm_jax.training.resume_settings import resume_settings

    data = {
        Path(name).name: Path(name).stat().st_size
        for name in locations.named_in(training.data.path)
        if Path(name).is_file()
    }
    return {**resume_settings(training), "data": data, "data.mixture": training.data.mixture.to_dict()}


def check_finished(folders: Sequence[Folder], output: Path) -> None:
    """Raises InputError where cells are already made with other settings."""
    differing: dict[str, list[str]] = {}
    for folder in folders:
        before, now = folder.state.get("settings", {}), folder.settings
        for key in now:
            if key in before and before[key] != now[key]:
                differing.setdefault(f"{key} = {before[key]!r}, which is now {now[key]!r}", []).append(folder.cell.name)
    if differing:
        differences = "; ".join(f"{names[0]} with {what}" for what, names in differing.items())
        raise InputError(
            f"{output}: {len({name for names in differing.values() for name in names})} cells were made with other "
            f"settings: {differences}. Give those settings again, or take another --output"
        )


def run_cells(folders: Sequence[Folder], lock: int, signals: list[int], write: Callable[[], None]) -> dict[str, str]:
    """Runs what is not finished, until asked to stop; {name: reason} of what failed."""
    failed: dict[str, str] = {}
    took: list[float] = []
    left = [folder for folder in folders if not folder.finished]
    if len(left) < len(folders):
        terminal.say(f"{len(folders) - len(left)} of {len(folders)} cells are finished already")
    write()
    for number, folder in enumerate(left, start=1):
        title = f"[{number + len(folders) - len(left)}/{len(folders)}] {folder.cell.title}"
        terminal.say(f"{title}: begun; it tells more in {folder.path / LOG}")
        begun, whole = time.monotonic(), not folder.path.exists()
        try:
            run_cell(folder, lock, signals)
        except Failed as error:
            lines = str(error).splitlines()
            # Where there are several errors, the last line counts them: the first says more.
            failed[folder.cell.name] = next((line for line in lines if line.startswith("error: ")), lines[-1])
            terminal.say(f"{title}: FAILED\n" + "\n".join(f"    {line}" for line in str(error).splitlines()))
        if signals:
            break
        if not folder.finished:
            continue
        seconds = time.monotonic() - begun
        took += [seconds] if whole else []
        ahead = f"; about {sweep_report.duration(sum(took) / len(took) * (len(left) - number))} left" if took else ""
        terminal.say(
            f"{title}: {folder.state['mean']:.1%} of {folder.state['n']}, in {sweep_report.duration(seconds)}{ahead}"
        )
        write()
    return failed


def run_cell(folder: Folder, lock: int, signals: list[int]) -> None:
    """Trains and evaluates, and goes on from where either was stopped. Returns early when asked to stop.

    Raises:
      Failed: the script did.
    """
    folder.path.mkdir(exist_ok=True)
    if not run_script(folder.command, folder.path / LOG, lock, signals):
        return
    lines = (folder.path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    summary = read_json(folder.path / "evaluation" / "report.json")
    folder.keep(
        train_seconds=sum(json.loads(line)["seconds"] for line in lines),
        steps=len(lines),
        **{key: summary[key] for key in ("mean", "low", "high", "n")},
    )


def run_script(words: list[str], log: Path, lock: int, signals: list[int]) -> bool:
    """Runs a script as a person would. False when it was stopped because the sweep is.

    It has a session of its own, so that a Ctrl-C in the terminal reaches it once, through here, and it saves; a second
    one ends it.

    Raises:
      Failed: it ended with an error.
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
                    terminal.say("stopping: the cell saves what it has; a second Ctrl-C ends it at once")
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
        lines = deque((line for line in lines_of(file.read()) if line.strip()), maxlen=TAIL)
    if process.returncode < 0:
        lines.append(f"{Path(words[1]).name} was ended by {signal.Signals(-process.returncode).name}")
    raise Failed("\n".join(lines) or f"{Path(words[1]).name} ended with status {process.returncode}")


def lines_of(log: bytes) -> Iterator[str]:
    # Progress bars write over their line.
    yield from log.decode("utf-8", errors="replace").replace("\r", "\n").split("\n")


def write_report(config: ConfigDict, folders: Sequence[Folder], output: Path) -> None:
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


if __name__ == "__main__":
    command_line.run(main, config=True)

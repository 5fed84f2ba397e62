"""What the cells of a sweep come to: rows with intervals, a table to read, one for programs, and a plot.

A row is what the seeds of one combination scored. With two seeds or more its interval is Student's t over them: it
holds what trainings differ by. With one it is the evaluation's own, over questions, and every row says which.
"""

import csv
import dataclasses
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.evaluation.sweep import Cell

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Okabe and Ito's, which differ for every kind of eye."""
_MARKERS = "osD^vPX"
_LETTER = 0.09
"""Inches that a letter takes at most, nearly."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One combination of labels.

    Attributes:
      scores: {seed: mean score} of the cells that are finished.
      planned: how many seeds there are to be.
      over: what the interval is over: seeds, questions, or "" where nothing is finished.
      questions: how many were asked.
      seconds: of training steps, the mean of the cells.
    """

    labels: dict[str, str]
    scores: dict[int, float]
    planned: int
    mean: float
    low: float
    high: float
    over: str
    questions: int
    seconds: float


def rows_of(cells: Sequence[Cell], results: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """A row for every combination of labels among `cells`, in order; `results` are lines of results.jsonl by name."""
    grouped: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        grouped.setdefault(tuple(cell.labels.values()), []).append(cell)
    rows = []
    for members in grouped.values():
        by_seed = {cell.seed: results[cell.name] for cell in members if cell.name in results}
        scores = {seed: result["mean"] for seed, result in by_seed.items()}
        low, high, over = _interval(list(by_seed.values()))
        count = max(1, len(by_seed))
        rows.append(
            Row(
                members[0].labels,
                scores,
                len(members),
                sum(scores.values()) / count if scores else math.nan,
                low,
                high,
                over,
                max((result["n"] for result in by_seed.values()), default=0),
                sum(result["train_seconds"] for result in by_seed.values()) / count,
            )
        )
    return rows


def _interval(results: Sequence[Mapping[str, Any]]) -> tuple[float, float, str]:
    """The 95 % interval of a row, and what it is over."""
    scores = [result["mean"] for result in results]
    if not scores:
        return math.nan, math.nan, ""
    # Seeds that all score the same would give t an interval without width, which nobody should believe.
    if len(set(scores)) == 1:
        return results[0]["low"], results[0]["high"], "questions"
    from scipy.special import stdtrit

    mean = sum(scores) / len(scores)
    deviation = math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
    half = float(stdtrit(len(scores) - 1, 0.975)) * deviation / math.sqrt(len(scores))
    return max(0.0, mean - half), min(1.0, mean + half), "seeds"


def table(rows: Sequence[Row], *, title: str) -> str:
    """Markdown that is as readable in a terminal: the title, a line for each row, what the intervals mean."""
    axes = list(rows[0].labels)
    head = [*axes, "seeds", "score", "95 % interval", "over", "each seed", "questions", "training"]
    lines = [head]
    for row in rows:
        seeds = f"{len(row.scores)}" if len(row.scores) == row.planned else f"{len(row.scores)} of {row.planned}"
        figures = [seeds, "–", "–", "–", "–", "–", "–"]
        if row.scores:
            each = ", ".join(f"{score:.1%}" for score in row.scores.values())
            within = f"{row.low:.1%} – {row.high:.1%}"
            figures = [seeds, f"{row.mean:.1%}", within, row.over, each, f"{row.questions}", duration(row.seconds)]
        lines.append([*row.labels.values(), *figures])
    cells = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    drawn = [
        "| " + " | ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    drawn.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([title, "", *drawn, "", *_notes(rows)]) + "\n"


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    if any(row.over == "seeds" for row in rows):
        notes.append("over seeds: Student's t of the seeds' scores, cut at 0 and 100 %")
    if any(row.over == "questions" and len(row.scores) == 1 for row in rows):
        notes.append("over questions: bootstrap of the one seed; another training may differ by more")
    if any(row.over == "questions" and len(row.scores) > 1 for row in rows):
        notes.append("over questions, of several seeds: they scored the same, so the interval is that of the first")
    if any(row.scores for row in rows):
        notes.append("training: time of the steps of one run, the mean of the seeds; without loading and compiling")
    return notes


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def comma_separated(rows: Sequence[Row]) -> str:
    """The table for programs: plain numbers, empty where nothing is finished."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = ("seeds", "mean", "low", "high", "interval_over", "questions", "train_seconds")
    writer.writerow([*rows[0].labels, *names])
    for row in rows:
        figures = [row.mean, row.low, row.high, row.over, row.questions, row.seconds]
        writer.writerow([*row.labels.values(), len(row.scores), *(figures if row.scores else [""] * len(figures))])
    return buffer.getvalue()


def plot(rows: Sequence[Row], path: Path, *, x_axis: str, title: str, score: str) -> None:
    """Draws the rows that have a score: `x_axis` from left to right, a colour for every combination of the others.

    Points are joined where the labels below them begin with a number; labels that only name things have no order.
    """
    from matplotlib.figure import Figure  # not pyplot, whose backend is the caller's
    from matplotlib.ticker import PercentFormatter

    labels = list(dict.fromkeys(row.labels.get(x_axis, "") for row in rows))
    lines: dict[str, list[Row]] = {}
    for row in rows:
        others = ", ".join(f"{axis} {label}" for axis, label in row.labels.items() if axis != x_axis)
        lines.setdefault(others, []).append(row)
    ordered = all(re.match(r"[\d.]", label) for label in labels)
    width = max(7.0, 1.1 * len(labels) + 2)
    room = int((width - 1) / len(labels) / _LETTER) - 1
    below = [textwrap.fill(label, room) for label in labels]
    columns = max(1, int(width / (0.9 + _LETTER * max(map(len, lines)))))
    height = 4.5 + 0.25 * (-(-len(lines) // columns) + max(label.count("\n") for label in below))
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    for number, (name, members) in enumerate(lines.items()):
        shown = [row for row in members if row.scores]
        # Side by side, so that no interval hides another.
        aside = 0.5 * ((number + 0.5) / len(lines) - 0.5)
        axes.errorbar(
            [labels.index(row.labels.get(x_axis, "")) + aside for row in shown],
            [row.mean for row in shown],
            yerr=[[row.mean - row.low for row in shown], [row.high - row.mean for row in shown]],
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[(number + number // len(_MARKERS)) % len(_MARKERS)],
            linestyle="-" if ordered else "none",
            linewidth=1.2,
            elinewidth=1.4,
            capsize=3.5,
            label=name,
        )
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xticks(range(len(labels)), below)
    axes.set_xlabel(x_axis)
    axes.set_ylabel(f"{score} score, 95 % interval")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(textwrap.fill(title, int(width / _LETTER)), fontsize="medium")
    if len(lines) > 1:
        figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    figure.savefig(path, dpi=160, bbox_inches="tight")  # as large as its longest label needs

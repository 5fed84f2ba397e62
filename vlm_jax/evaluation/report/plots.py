"""The pictures of a report: scores with their intervals, and how sure the model was beside how right."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = ("#1f6fb2", "#c8553d", "#4c8c4a", "#8a6bb1", "#b08900", "#4aa3a3")
_MOST = 24  # rows of a drawing that can be read


def scores(rows: Sequence[tuple[str, Mapping[str, Any]]], metric: str) -> bytes:
    """A PNG: each row's mean with its interval, each baseline's below it.

    Args:
      rows: (name, `summary.part`).
    """
    rows = rows[:_MOST]
    baselines = list(dict.fromkeys(name for _, part in rows for name in part.get("baselines", {})))
    figure, axes = _figure(7.5, 0.9 + (0.28 + 0.12 * len(baselines)) * len(rows))
    for number, name in enumerate(["this model", *baselines]):
        parts = [
            (place, part if number == 0 else part.get("baselines", {}).get(name))
            for place, (_, part) in enumerate(rows)
        ]
        shown = [(place, part) for place, part in parts if part]
        means = [part["mean"] for _, part in shown]
        axes.errorbar(
            means,
            [place + 0.18 * (number - len(baselines) / 2) for place, _ in shown],
            xerr=[
                [mean - part["low"] for mean, (_, part) in zip(means, shown, strict=True)],
                [part["high"] - mean for mean, (_, part) in zip(means, shown, strict=True)],
            ],
            fmt="o" if number == 0 else "s",
            color=COLOURS[number % len(COLOURS)],
            markersize=5,
            capsize=2.5,
            label=name,
        )
    axes.set_yticks(range(len(rows)), [_short(name) for name, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    _percent(axes.xaxis)
    axes.set_xlabel(f"{metric}, with 95 % intervals")
    axes.grid(axis="x", alpha=0.3)
    if baselines:
        axes.legend(frameon=False, fontsize="small", loc="best")
    return _png(figure)


def calibration(found: Mapping[str, Any]) -> bytes:
    """A PNG: the mean score of answers that the model was about equally sure of."""
    figure, axes = _figure(4.2, 4.0)
    axes.plot([0, 1], [0, 1], color="#888", linestyle=":", label="as sure as right")
    sure, right = ([one[name] for one in found["bins"]] for name in ("confidence", "score"))
    axes.plot(sure, right, marker="o", color=COLOURS[0], label="this model")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _percent(axes.xaxis)
    _percent(axes.yaxis)
    axes.set_xlabel("probability that the model gave its answer")
    axes.set_ylabel("mean score")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return _png(figure)


def _figure(width: float, height: float):
    from matplotlib.figure import Figure  # not pyplot, which would show it in a notebook, or need another backend there

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _percent(axis) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _short(name: str) -> str:
    # matplotlib reads a pair of dollars as mathematics.
    name = name.replace("$", r"\$")
    return name if len(name) <= 40 else f"{name[:39]}…"

"""The summary of an evaluation as lines for a terminal."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlm_jax import terminal
from vlm_jax.evaluation.report.summary import row_of_set

SHOWN = 12
"""Values of a group that a terminal is given: hundreds of facts are for report.json."""


def table(summary: Mapping[str, Any]) -> str:
    """The figures over all and by group, and what they mean."""
    if "unscored" in summary:
        sets = [
            f"{row_of_set(name, part)}: {part['mean']:.1%} ({part['low']:.1%} – {part['high']:.1%}), n {part['n']}"
            for name, part in summary.get("general", {}).items()
        ]
        said = f"{summary['n']} questions: {summary['unscored']}"
        return "\n".join([said, *sets, *about(summary), *_unasked(summary)])
    rows = [("all", summary)]
    for name, groups in summary.get("by", {}).items():
        rows += [(f"{name} {value}", part) for value, part in groups.items()] if len(groups) <= SHOWN else []
    rows += [(row_of_set(value, part), part) for value, part in summary.get("general", {}).items()]
    width = max(len(name) for name, _ in rows)
    before = next(iter(summary.get("baselines", ())), None)
    metric = summary["metric_version"]
    column = max(10, len(metric))
    head = f"{'':{width}}  {'before  ' if before else ''}{metric:>{column}}   95 % interval      n  blind"
    lines = [head + ("   change" if before else "")]
    for name, part in rows:
        other = part.get("baselines", {}).get(before) if before else None
        earlier = f"{other['mean']:>6.1%}  " if other else " " * 8 if before else ""
        lines.append(
            f"{name:{width}}  {earlier}{part['mean']:>{column}.1%}   {part['low']:>6.1%} – {part['high']:<6.1%}  "
            f"{part['n']:>5}  {part['majority']:>5.1%}{'   ' + change(other['difference']) if other else ''}"
        )
    lines.append("blind: right without looking, by the commonest answer to each kind of question")
    for name, other in summary.get("baselines", {}).items():
        named = f" than {name}" if len(summary["baselines"]) > 1 else ""
        lines.append(f"learned {other['learned']}, lost {other['lost']}: {change(other['difference'])}{named}")
    return "\n".join([*lines, *about(summary), *_unasked(summary)])


def change(difference: Mapping[str, Any]) -> str:
    """A difference in points with its interval, and how likely chance alone is."""
    points = "{:+.1f} points ({:+.1f} to {:+.1f})".format(*(100 * difference[name] for name in ("mean", "low", "high")))
    return f"{points}, p {probability(difference['p'])}"


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def closing_lines(summary: Mapping[str, Any], folder: str) -> str:
    """What a program says at the end of an evaluation whose report lies in `folder`, as it may stand on a terminal."""
    return terminal.safe(f"{table(summary)}\nreport: {Path(folder) / 'report.html'}")


def about(summary: Mapping[str, Any]) -> list[str]:
    """Lines on what a benchmark of the table says besides."""
    lines = []
    if headline := summary.get("headline"):
        named = headline["rule"].replace("_", " ")
        figure = (
            f"{headline['value']:.2%}, the {named} of {' and '.join(headline['parts'])}"
            if "value" in headline
            else f"none: the {named} by {headline['group']} needs questions of {' and '.join(headline['missing'])} too"
        )
        lines.append(f"published figure: {figure}")
    lines += [f"also {name}: {mean:.1%}" for name, mean in summary.get("also", {}).items()]
    lines += [_answerability(summary["answerability"])] if "answerability" in summary else []
    lines += [_judge(summary["judge"])] if "judge" in summary else []
    published = summary.get("published", {})
    if published.get("size", summary["n"]) != summary["n"]:
        lines.append(f"{summary['n']:,} questions of the {published['size']:,} of the split {published['split']}")
    if "splits" in published:
        lines.append(f"of several splits: {', '.join(f'{name} {n:,}' for name, n in published['splits'].items())}")
    if "submission" in summary:
        lines.append(f"to hand in: {summary['submission']}")
    return lines


def _answerability(told: Mapping[str, Any]) -> str:
    precision = "–" if told["average_precision"] is None else f"{told['average_precision']:.1%}"
    return (
        f"answerability: {told['unanswerable']:,} of {told['n']:,} have no answer; told right {told['accuracy']:.1%}, "
        f'F1 of "unanswerable" {told["f1"]:.1%}, average precision {precision}'
    )


def _judge(verdicts: Mapping[str, Any]) -> str:
    """The judge's figure, on how many, and how far it says what the metric says."""
    if verdicts["mean"] is None:
        return f"judged by {verdicts['judge']}: no answer has a verdict"
    agreement = verdicts["agreement"]
    within = f"95 % interval {verdicts['low']:.1%} to {verdicts['high']:.1%}, n {verdicts['scored']:,}"
    kappa = "undefined" if agreement["kappa"] is None else f"{agreement['kappa']:.2f}"
    agreed = f"{agreement['share']:.1%} as {agreement['metric']} has it, kappa {kappa}" if agreement["n"] else "none"
    unjudged = sum(verdicts["unjudged"].values())
    without = f"; {unjudged:,} without a verdict are in no mean" if unjudged else ""
    return f"judged by {verdicts['judge']}: {verdicts['mean']:.1%} ({within}); agreement {agreed}{without}"


def _unasked(summary: Mapping[str, Any]) -> list[str]:
    errors = summary["errors"]
    if not errors:
        return []
    first = f"{errors[0]['id']}: {errors[0]['error']}"
    all_named = f"; report.json has all {len(errors)}" if len(errors) > 1 else ""
    return [f"{len(errors)} could not be asked and count as wrong ({first}{all_named})"]

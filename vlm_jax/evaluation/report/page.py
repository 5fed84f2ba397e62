"""`report.html`: one file, images included, that needs no network and explains its own words.

What models and records wrote is escaped everywhere.
"""

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.evaluation.report import plots
from vlm_jax.evaluation.report.examples import cards
from vlm_jax.evaluation.report.summary import Baselines, row_of_set
from vlm_jax.evaluation.report.terminal_table import about, probability
from vlm_jax.evaluation.runner import Prediction
from vlm_jax.processing.images import Source

ROWS = 40
"""Values of a group that the page has a row for; report.json has all."""


def style() -> str:
    """Of this page, and of others that stand beside it."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


_WORDS = {
    "n": "questions that were asked.",
    "95 % interval": "where the score would lie if other images of the same kind had been asked about, 19 times out of "
    "20: bootstrap over images, since questions about one image go together.",
    "blind": "what would be right without looking: the commonest answer to each kind of question, every time.",
    "change": "this model less the other one on the questions that both answered, in points, with its 95 % interval.",
    "p": "how often a difference as large comes by chance alone, were the two models alike (sign-flip permutation "
    "test, images as units). Of twenty rows one is below 0.05 by chance.",
    "learned, lost": "questions that this model has a higher, and a lower, score on.",
    "calibration error": "how far the model's probability of its answers lies from how often they are right, on "
    "average; 0 is best.",
    "ranking": "the chance that a right answer has a higher probability than a wrong one; 50 % is none.",
}


def page(
    predictions: Sequence[Prediction],
    summary: Mapping[str, Any],
    images: Callable[[str], list[Source]],
    *,
    title: str,
    baselines: Baselines | None = None,
    pictures: Mapping[str, bytes] | None = None,
) -> str:
    """The figures, what they break down to, and questions with their images, lost and wrong ones first.

    Args:
      images: gives the images of a question's id.
      baselines: as `summarise` was given.
      pictures: `plots_of`.
    """
    sections = [_figures(summary)]
    sections += [f"<p>{html.escape(line)}</p>" for line in about(summary)]
    sections += [_general(summary), _picture(pictures, "scores"), _groups(summary), _calibration(summary, pictures)]
    sections += [_settings(summary), _words(summary), cards(predictions, images, baselines or {})]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style()}</style>"
        f"<h1>{html.escape(title)}</h1>{''.join(sections)}</html>\n"
    )


def plots_of(summary: Mapping[str, Any]) -> dict[str, bytes]:
    """{name: PNG} of a scored summary."""
    if "unscored" in summary:
        return {}
    rows = [("all", summary)]
    for name, groups in summary.get("by", {}).items():
        rows += [(f"{name} {value}", part) for value, part in groups.items()] if 1 < len(groups) <= 8 else []
    rows += [(row_of_set(value, part), part) for value, part in summary.get("general", {}).items()]
    found = {"scores": plots.scores(rows, str(summary["metric_version"]))}
    if "calibration" in summary:
        found["calibration"] = plots.calibration(summary["calibration"])
    return found


def _figures(summary: Mapping[str, Any]) -> str:
    if "unscored" in summary:
        return f"<p>{html.escape(summary['unscored'])}</p>"
    return _table([("all", summary)], summary) + _speed(summary)


def _table(
    rows: Sequence[tuple[str, Mapping[str, Any]]], summary: Mapping[str, Any], heading: str = "", metric: str = ""
) -> str:
    """Rows of parts, each baseline with its columns; `metric`: of parts that have one of their own."""
    names = list(dict.fromkeys(name for _, part in rows for name in part.get("baselines", ())))
    head = [heading, metric or str(summary["metric_version"]), "95 % interval", "n", "blind"]
    head += [column for name in names for column in (name, "change", "p")]
    body = []
    for name, part in rows:
        cells = [name, f"{part['mean']:.1%}", f"{part['low']:.1%} – {part['high']:.1%}", f"{part['n']:,}"]
        cells.append(f"{part['majority']:.1%}")
        for other in (part.get("baselines", {}).get(baseline) for baseline in names):
            if other is None:
                cells += ["", "", ""]
                continue
            difference = other["difference"]
            mean, low, high = (100 * difference[side] for side in ("mean", "low", "high"))
            cells += [f"{other['mean']:.1%}", f"{mean:+.1f} ({low:+.1f} to {high:+.1f})", probability(difference["p"])]
        body.append("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells))
    columns = "".join(f"<th>{html.escape(cell)}" for cell in head)
    return f"<div class=figures><table><tr>{columns}{''.join(body)}</table></div>"


def _general(summary: Mapping[str, Any]) -> str:
    if not (sets := summary.get("general")):
        return ""
    metric = next(iter(sets.values()))["metric"]
    return f"<h2>What may have been forgotten</h2>{_table(list(sets.items()), summary, 'general set', metric)}"


def _groups(summary: Mapping[str, Any]) -> str:
    sections = []
    for name, groups in summary.get("by", {}).items():
        if len(groups) < 2:
            continue
        shown = groups.items() if len(groups) <= ROWS else sorted(groups.items(), key=_mean)[:ROWS]
        more = f"<p>The {ROWS} of {len(groups):,} with the lowest score; report.json has all.</p>"
        table = _table(list(shown), summary, name)
        opened = " open" if len(groups) <= 12 else ""
        sections.append(
            f"<details{opened}><summary>by {html.escape(name)}</summary>{more if len(groups) > ROWS else ''}{table}"
            "</details>"
        )
    return f"<h2>Where it is right</h2>{''.join(sections)}" if sections else ""


def _mean(item: tuple[str, Mapping[str, Any]]) -> float:
    return item[1]["mean"]


def _calibration(summary: Mapping[str, Any], pictures: Mapping[str, bytes] | None) -> str:
    if not (found := summary.get("calibration")):
        return ""
    ranking = "" if found["ranking"] is None else f", ranking {found['ranking']:.1%}"
    return (
        f"<h2>Does it know when it is right?</h2><p>calibration error {found['error']:.1%}{ranking}, of "
        f"{found['n']:,} answers</p>{_picture(pictures, 'calibration')}"
    )


def _speed(summary: Mapping[str, Any]) -> str:
    if not (speed := summary.get("speed")):
        return ""
    return (
        f"<p>{speed['questions']:,} questions asked in {speed['seconds']:,.0f} s "
        f"({speed['questions'] / max(speed['seconds'], 1e-9):.1f} a second, {speed['tokens']:,} tokens of answers), "
        f"compiling included, on {html.escape(speed['device'])}</p>"
    )


def _settings(summary: Mapping[str, Any]) -> str:
    if not (settings := summary.get("settings")):
        return ""
    texts = {name: _reduction(value) if name == _REDUCTION else _text(value) for name, value in settings.items()}
    rows = "".join(
        f"<tr><td>{html.escape(str(name))}<td class=setting>{html.escape(text)}" for name, text in texts.items()
    )
    return (
        "<details><summary>Settings that move a score</summary>"
        f"<div class=figures><table class=settings>{rows}</table></div></details>"
    )


_REDUCTION = "token_reduction"


def _reduction(value: Any) -> str:
    """[visual tokens, method, seed, layer] in words."""
    tokens, method, seed, *layer = value
    count = f"{tokens:.0%} of the visual tokens" if isinstance(tokens, float) else f"{tokens} visual tokens an image"
    return f"{count} by {method}, seed {seed}{f', behind layer {layer[0]}' if layer else ''}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(one)}" for name, one in value.items())
    return " … ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


def _words(summary: Mapping[str, Any]) -> str:
    compared = "baselines" in summary
    shown = {
        word: meaning
        for word, meaning in _WORDS.items()
        if (compared or word not in ("change", "p", "learned, lost"))
        and ("calibration" in summary or word not in ("calibration error", "ranking"))
    }
    entries = "".join(f"<dt>{html.escape(word)}<dd>{html.escape(meaning)}" for word, meaning in shown.items())
    metric = html.escape(str(summary.get("metric_version")))
    about_metric = html.escape(summary.get("about_metric", ""))
    first = f"<dt>{metric}<dd>{about_metric}" if about_metric else ""
    return f"<details><summary>What the words mean</summary><dl class=words>{first}{entries}</dl></details>"


def _picture(pictures: Mapping[str, bytes] | None, name: str) -> str:
    if not pictures or name not in pictures:
        return ""
    data = base64.b64encode(pictures[name]).decode()
    return f'<img class=plot alt="{name}" src="data:image/png;base64,{data}">'

"""Reports of an evaluation: `report.json` for programs, a table for the terminal, `report.html` for people.

The page is one file, images included, and needs no network. A baseline (predictions of the same questions by another
model, before training, say) stands beside: what was learned, what was lost.
"""

import base64
import html
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_jax import terminal
from vlm_jax.errors import InputError
from vlm_jax.evaluation.runner import Prediction
from vlm_jax.evaluation.statistics import interval, majority
from vlm_jax.processing.images import Source, open_image

_KIND = ("task", "language")
"""Groups that a question's text alone gives away."""
UNSCORED = "no answers in this split, so nothing is scored"
SHOWN = 60
"""Questions shown with their images: a page of all would not open on a phone."""
THUMBNAIL = 240


def summarise(predictions: Sequence[Prediction], baseline: Mapping[str, Prediction] | None = None) -> dict[str, Any]:
    """Means, sizes and 95 % bootstrap intervals, over all and by group, each beside the same questions before."""
    before = baseline or {}
    if predictions and all(one.score is None for one in predictions):
        unasked = [{"id": one.id, "error": one.error} for one in predictions if one.error]
        return {"metric": None, "n": len(predictions), "unscored": UNSCORED, "errors": unasked}
    summary: dict[str, Any] = {"metric": predictions[0].metric if predictions else None, **_part(predictions, before)}
    summary["interval"] = "95 %, percentile bootstrap over questions, 2000 resamples"
    for name in sorted({name for one in predictions for name in one.groups}):
        values = sorted({one.groups[name] for one in predictions if name in one.groups})
        summary.setdefault("by", {})[name] = {
            value: _part([one for one in predictions if one.groups.get(name) == value], before) for value in values
        }
    summary["errors"] = [{"id": one.id, "error": one.error} for one in predictions if one.error]
    return summary


def table(summary: Mapping[str, Any]) -> str:
    """The summary as lines for a terminal."""
    if "unscored" in summary:
        return "\n".join([f"{summary['n']} questions: {summary['unscored']}", *_about(summary), *_unasked(summary)])
    rows = [("all", summary)]
    for name, groups in summary.get("by", {}).items():
        # Hundreds of facts are for report.json.
        rows += [(f"{name} {value}", part) for value, part in groups.items()] if len(groups) <= 12 else []
    width = max(len(name) for name, _ in rows)
    earlier = "baseline" in summary
    lines = [f"{'':{width}}  {'before  ' if earlier else ''}{summary['metric']:>10}   95 % interval      n  blind"]
    for name, part in rows:
        before = f"{part['baseline']['mean']:>6.1%}  " if "baseline" in part else " " * 8 if earlier else ""
        lines.append(
            f"{name:{width}}  {before}{part['mean']:>10.1%}   {part['low']:>6.1%} – {part['high']:<6.1%}  "
            f"{part['n']:>5}  {part['majority']:>5.1%}"
        )
    lines.append("blind: right without looking, by the commonest answer to each kind of question")
    if earlier:
        lines.append(f"learned {summary['baseline']['learned']}, lost {summary['baseline']['lost']}")
    return "\n".join([*lines, *_about(summary), *_unasked(summary)])


def _about(summary: Mapping[str, Any]) -> list[str]:
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
    published = summary.get("published", {})
    if published.get("size", summary["n"]) != summary["n"]:
        lines.append(f"{summary['n']:,} questions of the {published['size']:,} of the split {published['split']}")
    if "splits" in published:
        lines.append(f"of several splits: {', '.join(f'{name} {n:,}' for name, n in published['splits'].items())}")
    if "submission" in summary:
        lines.append(f"to hand in: {summary['submission']}")
    return lines


def _unasked(summary: Mapping[str, Any]) -> list[str]:
    errors = summary["errors"]
    if not errors:
        return []
    first = f"{errors[0]['id']}: {errors[0]['error']}"
    all_named = f"; report.json has all {len(errors)}" if len(errors) > 1 else ""
    return [f"{len(errors)} could not be asked and count as wrong ({first}{all_named})"]


def closing_lines(summary: Mapping[str, Any], folder: str) -> str:
    """What a program says at the end of an evaluation whose report lies in `folder`, as it may stand on a terminal."""
    return terminal.safe(f"{table(summary)}\nreport: {Path(folder) / 'report.html'}")


def page(
    predictions: Sequence[Prediction],
    summary: Mapping[str, Any],
    images: Callable[[str], list[Source]],
    *,
    title: str,
    baseline: Mapping[str, Prediction] | None = None,
) -> str:
    """`report.html`: the figures, then questions with their images, flipped and wrong ones first.

    `images` gives the images of a question's id. Everything from records and models is escaped.
    """
    before = baseline or {}

    def kind(one: Prediction) -> tuple[int, str]:
        earlier = before.get(one.id)
        if one.error:
            return 0, "not asked"
        if one.score is None:
            return 5, "answered"
        if earlier is not None and earlier.score != one.score:
            return (1, "lost") if one.score < earlier.score else (3, "learned")
        return (2, "wrong") if one.score < 1 else (4, "right")

    # Some of each kind, in the order of the kinds.
    by_kind: dict[tuple[int, str], list[Prediction]] = {}
    for one in predictions:
        by_kind.setdefault(kind(one), []).append(one)
    share = max(1, SHOWN // max(1, len(by_kind)))
    cards = "".join(
        _card(one, name, images, before.get(one.id))
        for (_, name), members in sorted(by_kind.items(), key=lambda item: item[0])
        for one in _spread(members, share)
    )
    shown = sum(min(len(members), share) for members in by_kind.values())
    counts = ", ".join(f"{len(members)} {name}" for (_, name), members in sorted(by_kind.items(), key=lambda i: i[0]))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1>{_figures(summary)}"
        f"{''.join(f'<p>{html.escape(line)}</p>' for line in _about(summary))}"
        f"<p>{html.escape(counts)}. {shown} of {len(predictions)} are shown; predictions.jsonl holds all.</p>"
        f"<main>{cards}</main></html>\n"
    )


def _spread(members: Sequence[Prediction], count: int) -> list[Prediction]:
    """Some of the members, evenly from first to last: files and splits stand one after the other."""
    step = max(1.0, len(members) / count)
    return [members[int(number * step)] for number in range(min(count, len(members)))]


_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.45 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem}
.figures{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0}
td{white-space:nowrap}td,th{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child{text-align:left}
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(16rem,1fr))}
article{border:1px solid #8886;border-radius:.5rem;padding:.75rem;overflow-wrap:anywhere}
article img{max-width:100%;max-height:12rem;border-radius:.25rem;display:block;margin-bottom:.5rem}
.kind{float:right;font-size:.8rem;padding:0 .5rem;border-radius:1rem;background:#8883}
.lost,.wrong,.not-asked{border-color:#c33}.learned,.right{border-color:#283}
@media(max-width:30rem){h1{font-size:1.3rem;overflow-wrap:anywhere}table{font-size:.85rem}td,th{padding:.2rem .35rem}}
dl{margin:.5rem 0 0}dt{font-size:.8rem;opacity:.7}dd{margin:0 0 .25rem}
"""


def _part(predictions: Sequence[Prediction], baseline: Mapping[str, Prediction]) -> dict[str, Any]:
    kinds = [" ".join(one.groups.get(name, "") for name in _KIND) for one in predictions]
    part = {**_mean(predictions), "majority": majority([one.answers for one in predictions], kinds)}
    both = [(baseline[one.id], one) for one in predictions if one.id in baseline]
    if both:
        part["baseline"] = {
            **_mean([before for before, _ in both]),
            "learned": sum(after.score > before.score for before, after in both),
            "lost": sum(after.score < before.score for before, after in both),
        }
    return part


def _mean(predictions: Sequence[Prediction]) -> dict[str, Any]:
    scores = [one.score for one in predictions]
    low, high = interval(scores)
    return {"n": len(scores), "mean": sum(scores) / len(scores) if scores else 0.0, "low": low, "high": high}


def _figures(summary: Mapping[str, Any]) -> str:
    if "unscored" in summary:
        return f"<p>{html.escape(summary['unscored'])}</p>"
    rows = [("all", summary)]
    for name, groups in summary.get("by", {}).items():
        rows += [(f"{name}: {value}", part) for value, part in groups.items()] if len(groups) <= 40 else []
    earlier = "baseline" in summary

    def before(part: Mapping[str, Any]) -> str:
        return "" if not earlier else f"<td>{part['baseline']['mean']:.1%}" if "baseline" in part else "<td>"

    body = "".join(
        f"<tr><td>{html.escape(name)}{before(part)}<td>{part['mean']:.1%}<td>{part['low']:.1%} – {part['high']:.1%}"
        f"<td>{part['n']}<td>{part['majority']:.1%}"
        for name, part in rows
    )
    head = f"<th>{'before<th>' if earlier else ''}{html.escape(str(summary['metric']))}"
    return f"<div class=figures><table><tr><th>{head}<th>95 % interval<th>n<th>blind{body}</table></div>"


def _card(one: Prediction, kind: str, images: Callable[[str], list[Source]], before: Prediction | None) -> str:
    entries = [("answer", " / ".join(one.answers)), ("said", one.error or one.prediction)]
    if before is not None:
        entries.insert(1, ("said before", before.prediction))
    lines = "".join(f"<dt>{name}<dd>{html.escape(text) or '—'}" for name, text in entries)
    shown = "".join(thumbnail(image) for image in images(one.id))
    return (
        f'<article class="{kind.replace(" ", "-")}"><span class=kind>{kind}</span>{shown}'
        f"<strong>{html.escape(one.question)}</strong><dl>{lines}</dl></article>"
    )


def thumbnail(source: Source) -> str:
    """An image as HTML that holds it, small; why it cannot be opened, where that is so."""
    try:
        image = open_image(source)
    except InputError as error:
        return f"<p>{html.escape(error.lines[0])}</p>"
    image.thumbnail((THUMBNAIL * 2, THUMBNAIL * 2))  # twice: sharp on dense screens
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f'<img loading=lazy alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

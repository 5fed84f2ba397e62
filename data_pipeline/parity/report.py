"""An alignment as one page: what became of every pair, and whether the gap or just more data did it.

The page is one file, images included, and needs no network; `report.json` has the same for programs. What models wrote
is escaped. Evaluations have pages of their own, which are named here.
"""

import base64
import dataclasses
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.parity.matchers import MATCHERS
from data_pipeline.parity.pairs import OUTCOMES, Compared
from data_pipeline.parity.rounds import Round
from vlm_jax import terminal
from vlm_jax.checkpoint.files import read_json, write_bytes, write_json, write_text
from vlm_jax.evaluation.report import plots, thumbnail
from vlm_jax.evaluation.report.examples import spread
from vlm_jax.evaluation.report.page import style
from vlm_jax.evaluation.report.terminal_table import change, probability

SHOWN = 12
"""Pairs of each outcome that the page has a card for."""
MOST = 300
"""Letters of a text on a card."""
_OUTCOMES = {
    "kept": "The student is wrong and the teacher right: what is trained on.",
    "both right": "The student knows it already; some are replayed.",
    "both wrong": "Neither gives the answer that the teacher wrote: it may be wrong itself.",
    "student alone right": "The teacher does not repeat what it wrote.",
}
_ARMS = {
    "kept": "the parity gap",
    "random": "as many pairs, drawn from all",
    "all": "all pairs, for as many steps",
}


def write(workdir: Path, rounds: Sequence[Round], evaluations: Mapping[str, Path], settings: Mapping[str, Any]) -> None:
    """Writes `report.json`, `report.html` and, with evaluations, `scores.png`."""
    scores = {name: read_json(folder / "report.json") for name, folder in evaluations.items()}
    summary = {
        "teacher": settings["teachers"]["text"].get("model", ""),
        "student": settings["training"]["model"]["path"],
        "matcher": settings["identify"]["matcher"],
        "rounds": [_round(one) for one in rounds],
        "evaluations": {name: _scores(report) for name, report in scores.items()},
    }
    write_json(workdir / "report.json", summary)
    picture = b""
    if shown := [(name, report) for name, report in scores.items() if "mean" in report]:
        bare = [(name, {key: report[key] for key in ("mean", "low", "high")}) for name, report in shown]
        picture = plots.scores(bare, str(shown[0][1]["metric_version"]))
        write_bytes(workdir / "scores.png", picture)
    write_text(workdir / "report.html", _page(workdir, summary, rounds, evaluations, picture))


def _round(one: Round) -> dict[str, Any]:
    return {
        "number": one.number,
        "images": one.images,
        "written": len(one.written),
        "left_out": one.left_out,
        "compared": len(one.compared),
        "unanswered": one.unanswered,
        **({} if one.agreement is None else dataclasses.asdict(one.agreement)),
        "sets": {arm: {"examples": size, "replayed": replayed} for arm, (size, replayed) in one.sets.items()},
        "steps": {arm: trained.steps for arm, trained in one.trained.items()},
    }


def _scores(report: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: report[name] for name in ("metric_version", "n", "mean", "low", "high") if name in report}
    for name in ("baselines", "general"):
        if name in report:
            own[name] = report[name]
    return own


def figures(evaluations: Mapping[str, Path]) -> list[str]:
    """What a program says at the end, a line for each that was asked."""
    lines = []
    for name, folder in evaluations.items():
        report = read_json(folder / "report.json")
        if "mean" not in report:
            continue
        line = f"{name:20} {report['mean']:6.1%} ({report['low']:.1%} to {report['high']:.1%}), n {report['n']:,}"
        others = report.get("baselines", {})
        lines.append(
            line + (f"; {change(others['before']['difference'])} against before" if "before" in others else "")
        )
        lines += [
            f"{'':20} {change(found['difference'])} against {other.replace('-', ' ', 1).replace('-', ', ')}"
            for other, found in others.items()
            if other != "before"
        ]
    return lines


def _page(
    workdir: Path,
    summary: Mapping[str, Any],
    rounds: Sequence[Round],
    evaluations: Mapping[str, Path],
    picture: bytes,
) -> str:
    title = f"{Path(summary['student']).name or 'a student'} taught by {Path(summary['teacher']).name or 'its teacher'}"
    scores = _before_and_after(summary["evaluations"], evaluations, workdir)
    if picture:
        scores += f'<img class=plot alt="scores" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
    body = "".join(_of_round(one, summary) for one in rounds)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style()}</style>"
        f"<h1>{html.escape(title)}</h1>{scores}{_general(summary['evaluations'])}{body}</html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, safe: bool = False, words: Sequence[int] = ()) -> str:
    """Args:
    safe: cells are HTML already.
    words: columns of text, which begin at the left and go on in another line; the others are figures.
    """
    written = str if safe else html.escape
    kinds = [" class=setting" if column in words else "" for column in range(len(head))]
    columns = "".join(f"<th{kind}>{html.escape(cell)}" for kind, cell in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{written(cell)}" for kind, cell in zip(kinds, row, strict=True)) for row in rows
    )
    return f"<div class=figures><table><tr>{columns}{body}</table></div>"


def _before_and_after(scores: Mapping[str, Any], evaluations: Mapping[str, Path], workdir: Path) -> str:
    shown = {name: one for name, one in scores.items() if "mean" in one}
    if not shown:
        return "<p>Nothing was evaluated.</p>"
    compared = {
        name: {_whom(other): found for other, found in one.get("baselines", {}).items()} for name, one in shown.items()
    }
    others = list(dict.fromkeys(whom for found in compared.values() for whom in found))
    rows = []
    for name, one in shown.items():
        page = html.escape(str((evaluations[name] / "report.html").relative_to(workdir)))
        cells = [f'<a href="{page}">{html.escape(name)}</a>']
        cells += [f"{one['mean']:.1%}<br>{one['low']:.1%} – {one['high']:.1%}", f"{one['n']:,}"]
        for other in others:
            found = compared[name].get(other)
            # In two lines: what the page is for is the last column, which is to be seen without scrolling.
            cells.append(html.escape(_difference(found["difference"])).replace(", p", "<br>p") if found else "")
        rows.append(cells)
    metric = next(iter(shown.values()))["metric_version"]
    head = ["", f"{metric}, 95 % interval", "n", *(f"against {other}" for other in others)]
    words = (
        "<p>Differences are in points, on the questions that both answered, with their 95 % interval and how often "
        "chance alone makes one as large (sign-flip permutation test, images as units); <em>random</em> and "
        "<em>all</em> are those of the same round. All students of the first round began alike, later ones where their "
        "own of the round before ended, and those of a round took as many steps; if <em>random</em> and <em>all</em> "
        "gain as much as <em>kept</em>, it is more data that helped, and not the gap.</p>"
    )
    return f"<h2>Before and after</h2>{_table(head, rows, safe=True)}{words}"


def _whom(baseline: str) -> str:
    """Whom a student is compared with, by the folder of that evaluation: the same words in every round, so that the
    table does not grow a column with each."""
    if not baseline.startswith("round-"):
        return baseline
    arm = baseline.rpartition("-")[2]
    return "kept of the round before" if arm == "kept" else arm


def _difference(difference: Mapping[str, Any]) -> str:
    mean, low, high = (100 * difference[side] for side in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}), p {probability(difference['p'])}"


def _general(scores: Mapping[str, Any]) -> str:
    rows = []
    sets = dict.fromkeys(data for one in scores.values() for data in one.get("general", {}))
    apart = len({Path(data).name for data in sets}) == len(sets)
    named = {data: Path(data).name if apart else data for data in sets}
    for name, one in scores.items():
        for data, part in one.get("general", {}).items():
            before = part.get("baselines", {}).get("before")
            interval = f"{part['low']:.1%} – {part['high']:.1%}"
            rows.append([name, named[data], f"{part['mean']:.1%}", interval, f"{part['n']:,}"])
            rows[-1].append(_difference(before["difference"]) if before else "")
    if not rows:
        return ""
    head = ["", "set", "score", "95 % interval", "n", "against before"]
    return "<h2>What was forgotten</h2>" + _table(head, rows)


def _of_round(one: Round, summary: Mapping[str, Any]) -> str:
    sections = [f"<h2>Round {one.number}</h2>", _funnel(one)]
    if one.agreement is not None:
        sections += [_agreement(one, summary["matcher"]), _sets(one), _examples(one.compared)]
    return "".join(sections)


def _funnel(one: Round) -> str:
    rows = [["images", f"{one.images:,}"]] if one.images else []
    rows += [["pairs that the teacher wrote", f"{len(one.written) + sum(one.left_out.values()):,}"]]
    rows += [[f"left out: {why}", f"{count:,}"] for why, count in one.left_out.items()]
    if one.agreement is not None:
        rows += [["left out: not answered by both, or not judged", f"{one.unanswered:,}"]] if one.unanswered else []
        rows += [["pairs that both answered", f"{len(one.compared):,}"]]
        rows += [["kept: student wrong, teacher right", f"{one.agreement.outcomes['kept']:,}"]]
    return _table(["from images to the gap", ""], rows, words=[0])


def _agreement(one: Round, matcher: str) -> str:
    assert one.agreement is not None
    counts, whole = one.agreement.outcomes, max(1, len(one.compared))

    def cell(outcome: str) -> str:
        return f"{counts[outcome]:,} ({counts[outcome] / whole:.0%})"

    rows = [["student right", cell("both right"), cell("student alone right")]]
    rows += [["student wrong", cell("kept"), cell("both wrong")]]
    found = "<h3>Where they agree</h3>" + _table(["", "teacher right", "teacher wrong"], rows)
    if one.agreement.by_type:
        lines = [
            [kind or "any", *(f"{own[name]:,}" for name in OUTCOMES)] for kind, own in one.agreement.by_type.items()
        ]
        found += _table(["type", *OUTCOMES], lines)
    rules = [(name, rule.words) for name, rule in MATCHERS.items() if rule is not None]
    lines = [
        [f"{name}{' (used)' if name == matcher else ''}", words, f"{one.agreement.kept_by[name]:,}"]
        for name, words in rules
    ]
    table = _table(["rule", "right is", "kept"], lines, words=[1])
    return f"{found}<h3>What each rule would keep of the same answers</h3>{table}"


def _sets(one: Round) -> str:
    if not one.sets:
        return ""
    rows = [
        [arm, _ARMS[arm], f"{size:,}", f"{replayed:,}", f"{one.trained[arm].steps:,}" if arm in one.trained else "–"]
        for arm, (size, replayed) in one.sets.items()
    ]
    title = "What was trained on" if one.trained else "What is to be trained on"
    return f"<h3>{title}</h3>" + _table(["", "", "examples", "of them replayed", "steps"], rows, words=[1])


def _examples(compared: Sequence[Compared]) -> str:
    found = ""
    for outcome in OUTCOMES:
        own = [one for one in compared if one.outcome == outcome]
        cards = "".join(_card(one) for one in spread(own, SHOWN))
        opened = " open" if outcome == "kept" else ""
        few = f" Shown are {SHOWN} of them; all are in <code>compared.jsonl</code>." if len(own) > SHOWN else ""
        found += f"<details{opened}><summary>{outcome}: {len(own):,}</summary><p>{_OUTCOMES[outcome]}{few}</p>"
        found += f"<main>{cards}</main></details>"
    return found


def _shown(text: str) -> str:
    """As HTML, with controls and marks of direction written out, which could show a text as another."""
    return html.escape(terminal.safe(text[:MOST])) + (f" … ({len(text):,} letters)" if len(text) > MOST else "")


def _card(one: Compared) -> str:
    said = " / ".join(dict.fromkeys(one.teacher))
    entries = [("the teacher wrote", one.pair.answer), ("the teacher says", said), ("the student says", one.student)]
    lines = "".join(f"<dt>{name}<dd>{_shown(text) or '—'}" for name, text in entries)
    colour = "right" if one.student_right else "wrong"
    return (
        f"<article class={colour}>{thumbnail(one.pair.file)}<strong>{_shown(one.pair.question)}</strong>"
        f"<dl>{lines}</dl></article>"
    )

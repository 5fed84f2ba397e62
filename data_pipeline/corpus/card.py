"""The card of a corpus: what is in it, and who made it, with what and for how much, as a hub's data set card has it."""

import html
import json
from collections.abc import Mapping
from typing import Any

from data_pipeline.review.summary import acceptance_lines


def text(manifest: Mapping[str, Any]) -> str:
    """The card as Markdown, its head in YAML."""
    sections = [
        _head(manifest),
        f"# {manifest['title'] or 'A corpus of questions about images'}",
        "Synthetic: topics, facts, images, questions and answers were written by models, and may be wrong. "
        "Made with vlm-jax.",
        "## What is in it\n\n" + _contents(manifest),
        "## How it was made\n\n" + _stages(manifest),
        "## What was left out\n\n" + _filters(manifest),
        "## What splits have in common\n\n" + _leakage(manifest),
        "## Review\n\n" + _review(manifest["review"]),
        "## By whom\n\n" + _models(manifest),
        "## Prompts\n\n" + _table(("file", "SHA-256"), list(manifest["prompts"].items())),
        "## Limits\n\n" + _limits(manifest),
    ]
    return "\n\n".join(sections) + "\n"


def _head(manifest: Mapping[str, Any]) -> str:
    languages = "\n".join(f"- {language}" for language in manifest["languages"])
    files = "\n".join(f"  - split: {_split(name)}\n    path: {name}.jsonl" for name in manifest["splits"])
    licence = f"license: {json.dumps(manifest['licence'])}\n" if manifest["licence"] else ""
    title = json.dumps(manifest["title"], ensure_ascii=False)
    return (
        f"---\npretty_name: {title}\n{licence}language:\n{languages}\ntask_categories:\n- visual-question-answering\n"
        f"tags:\n- synthetic\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---"
    )


def _split(name: str) -> str:
    return name.replace("-", "_")


def _contents(manifest: Mapping[str, Any]) -> str:
    splits = _table(("split", "questions"), [(name, f"{count:,}") for name, count in manifest["splits"].items()])
    diversity = (
        f"{manifest['images']:,} images; {sum(manifest['splits'].values()):,} questions in "
        f"{manifest['different_questions']:,} different wordings. "
    )
    by = "; ".join(
        f"{kind}: " + ", ".join(f"{_cell(html.escape(name))} {count:,}" for name, count in manifest[key].items())
        for kind, key in (("languages", "languages"), ("tasks", "tasks"), ("images", "image_sources"))
    )
    return f"{splits}\n\n{diversity}By {by}."


def stage_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of each stage: its name, items, and what it left out."""
    return [(name, f"{one['items']:,}", f"{one['left_out']:,}") for name, one in manifest["stages"].items()]


def filter_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of each filter: its name, what it kept and left out, and the kinds of reasons."""
    return [
        (
            one["filter"],
            f"{one['kept']:,}",
            f"{one['dropped']:,}",
            "; ".join(f"{reason} {count:,}" for reason, count in one["reasons"].items()),
        )
        for one in manifest["filters"]
    ]


SIMILARITY = ("cosine of answer and fact, at least", "kept", "left out")


def similarity_rows(manifest: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Of each threshold of near_fact: it, and what it would keep and leave out of the questions that came so far."""
    return [(f"{least:g}", f"{kept:,}", f"{dropped:,}") for least, kept, dropped in manifest["similarity"]]


def _stages(manifest: Mapping[str, Any]) -> str:
    return _table(("stage", "items", "left out"), stage_rows(manifest))


def _filters(manifest: Mapping[str, Any]) -> str:
    text = _table(("filter", "kept", "left out", "why"), filter_rows(manifest))
    if manifest["retention"]:
        text += (
            "\n\nOf questions with an article, what is kept where none mentions an image (IR), and the answer also "
            f"stands in the article (IR+CAP), whichever filters are on:\n\n```\n{manifest['retention']}\n```"
        )
    if rows := similarity_rows(manifest):
        text += f"\n\nWhat other thresholds of near_fact would keep:\n\n{_table(SIMILARITY, rows)}"
    if manifest["not_shown"]:
        text += (
            f"\n\n{manifest['not_shown']:,} questions were added whose image does not show what they ask about; "
            "where that took the name of the topic, the same question about an image that shows it was added as well."
        )
    return text


def _leakage(manifest: Mapping[str, Any]) -> str:
    rows = [
        (kind, f"{one['exact']:,}", f"{one['near']:,}", "kept apart" if kind in manifest["apart"] else "may be shared")
        for kind, one in manifest["leakage"].items()
    ]
    return _table(("", "the same", "nearly the same", ""), rows)


def _review(review: Mapping[str, Any]) -> str:
    if not review["reviewed"]:
        return "Nobody has reviewed it."
    verdicts = ", ".join(f"{count:,} {name}" for name, count in review["verdicts"].items())
    people = "1 person" if review["reviewers"] == 1 else f"{review['reviewers']} people"
    text = (
        f"{review['reviewed']:,} of {review['records']:,} questions were looked at by {people}: "
        f"{verdicts}. Accepted as they stood, with 95 % intervals (Wilson), "
        f"{', '.join(acceptance_lines(review['acceptance']))}. Those that were rejected are left out, those that were "
        "edited are as edited."
    )
    if review["twice"]:
        kappa = "undefined" if review["kappa"] is None else f"{review['kappa']:.2f}"
        text += f" {review['twice']:,} were looked at by two; Cohen's κ is {kappa}."
    return text


def _models(manifest: Mapping[str, Any]) -> str:
    rows = [
        (
            one["stage"],
            one["model"],
            f"{one['calls']:,}",
            f"{one['usage']['input']:,}",
            f"{sum(one['usage'][key] for key in ('output', 'thoughts', 'image')):,}",
            f"{one['cost']:.2f}",
        )
        for one in manifest["calls"]
    ]
    whole = sum(one["cost"] for one in manifest["calls"])
    versions = "; ".join(f"{model}: {', '.join(own)}" for model, own in manifest["models"].items())
    days = manifest["days"]
    dated = f" Answered {days[0]} to {days[1]} (UTC)." if days else ""
    priced = f" Prices of {manifest['prices']['date']}." if manifest["prices"].get("date") else " No prices were set."
    table = _table(("stage", "model", "calls", "tokens in", "tokens out", "$"), rows)
    return f"{table}\n\n${whole:.2f} in all.{priced}{dated} Versions that answered: {versions}."


def _limits(manifest: Mapping[str, Any]) -> str:
    limits = []
    if not manifest["licence"]:
        limits.append("- No licence was chosen: ask before you pass it on.")
    if not manifest["student"]:
        limits.append("- No student was asked what it knows already.")
    if not manifest["judge"]:
        limits.append("- Facts were not checked by another model.")
    elif manifest["own_judge"]:
        limits.append("- Facts may have been checked by the model that wrote them.")
    if not manifest["review"]["reviewed"]:
        limits.append("- Nobody has reviewed it.")
    return "\n".join(limits)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")

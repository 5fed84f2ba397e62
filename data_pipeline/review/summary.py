"""The figures of a review: for its card, for the line at the end of a session, and for the page.

How reviewers are combined is `decisions`'; the formulas are `agreement`'s.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path
from typing import Any

from data_pipeline.review.agreement import cohens_kappa, wilson
from data_pipeline.review.content import content_key
from data_pipeline.review.corpus import Item, corpus_folder, left_out, read_items
from data_pipeline.review.decisions import (
    ACCEPTED,
    EDITED,
    REJECTED,
    UNRESOLVED,
    Decision,
    by_record,
    decide,
    decisions_of,
)
from data_pipeline.review.log import LOG, REASONS, Entry, read_log, standing

_NAMED = 5  # ids of a list that a line on a terminal names


def review_statistics(corpus: str | Path) -> dict[str, Any]:
    """`summarise` of a corpus folder and its log, for the card; `torn` is the rest of a line that a crash cut off.

    Raises:
      InputError: the records or the log cannot be read.
    """
    folder = corpus_folder(corpus)
    entries, torn = read_log(folder / LOG)
    return {**summarise(read_items(folder), entries, left_out(folder)), "torn": torn}


def summarise(items: Sequence[Item], entries: list[Entry], built_without: Mapping[str, bool]) -> dict[str, Any]:
    """Counts, acceptance and agreement, as a JSON object. They are the same before and after a build.

    Args:
      built_without: `corpus.left_out`. These records and what was decided about them count as if they were there:
        without them everything that is left would have been accepted.

    Returns:
      `records`, `reviewed`; `verdicts` (accepted, rejected, edited, unresolved); `reasons` of rejections; `acceptance`
      of all that were reviewed, of the `flagged` and of the `unflagged` ones, each `{"reviewed", "accepted", "rate",
      "low", "high"}` where accepted means as it stood (Wilson, 95 %; the unflagged one estimates the unflagged part of
      the corpus, as that is a sample of it); `reviewers` (name to records); `agreement`, of each pair of reviewers
      the fields of `Kappa`, and `kappa`, the mean of theirs by number of records (None where undefined); ids that are
      `unresolved`, that have `changed` since every review of them, that were `left_out` by the build and are rejected
      still, that were and are not (`coming_back`), and of decided ones that are gone from the corpus otherwise: `gone`,
      and `gone_rejected`.
    """
    of_record = by_record(standing(entries))
    decisions: dict[str, Decision] = {}
    changed = []
    for item in items:
        if not (about := of_record.get(item.record.id)):
            continue
        decision = decide(item.record.id, about, content_key(item.record))
        if decision is None:
            changed.append(item.record.id)
        else:
            decisions[item.record.id] = decision
    present = {item.record.id for item in items}
    without = {identifier: doubted for identifier, doubted in built_without.items() if identifier not in present}
    absent = {name: decision for name, decision in decisions_of(entries).items() if name not in present}
    decisions |= {name: decision for name, decision in absent.items() if name in without}
    gone = [decision for name, decision in absent.items() if name not in without]
    rejected = {name for name, decision in absent.items() if decision.verdict == REJECTED}
    flagged = {item.record.id for item in items if item.flags} | {name for name, doubted in without.items() if doubted}
    verdicts = Counter(decision.verdict for decision in decisions.values())
    agreement, kappa = agreements(decisions.values())
    return {
        "records": len(items) + len(without),
        "reviewed": len(decisions),
        "verdicts": {verdict: verdicts[verdict] for verdict in (ACCEPTED, REJECTED, EDITED, UNRESOLVED)},
        "reasons": dict(Counter(reason for one in decisions.values() for reason, _ in one.reasons).most_common()),
        "acceptance": acceptance(decisions.values(), flagged),
        "reviewers": dict(Counter(name for one in decisions.values() for name in one.by_reviewer).most_common()),
        "agreement": agreement,
        "kappa": kappa,
        "unresolved": [one.id for one in decisions.values() if one.verdict == UNRESOLVED],
        "changed": changed,
        "left_out": [name for name in without if name in rejected],
        "coming_back": [name for name in without if name not in rejected],
        "gone": [one.id for one in gone if one.verdict != REJECTED],
        "gone_rejected": [one.id for one in gone if one.verdict == REJECTED],
    }


def agreements(decisions: Iterable[Decision]) -> tuple[list[dict[str, Any]], float | None]:
    """(each pair's `Kappa` with its `reviewers`, the mean κ of pairs weighted by their records).

    Categories are accepted, rejected and edited. The mean over pairs is Light's (1971), who weighted pairs equally.
    """
    both: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for decision in decisions:
        for first, second in combinations(sorted(decision.by_reviewer), 2):
            verdicts = decision.by_reviewer[first].verdict, decision.by_reviewer[second].verdict
            both.setdefault((first, second), []).append(verdicts)
    pairs = {names: cohens_kappa(*zip(*verdicts, strict=True)) for names, verdicts in sorted(both.items())}
    defined = [pair for pair in pairs.values() if pair.kappa is not None]
    mean = sum(pair.kappa * pair.n for pair in defined) / sum(pair.n for pair in defined) if defined else None
    return [{"reviewers": list(names), **dataclasses.asdict(pair)} for names, pair in pairs.items()], mean


def lines(summary: Mapping[str, Any]) -> list[str]:
    """A summary for the terminal."""
    verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in summary["verdicts"].items() if count)
    result = [
        f"reviewed {summary['reviewed']:,} of {summary['records']:,} records" + (f": {verdicts}" * bool(verdicts))
    ]
    result += [f"accepted as they stood, {line}" for line in acceptance_lines(summary["acceptance"])]
    if summary["reasons"]:
        counts = (f"{REASONS[reason]} {count:,}" for reason, count in summary["reasons"].items())
        result.append(f"rejected because: {', '.join(counts)}")
    for pair in summary["agreement"]:
        kappa = (
            "undefined" if pair["kappa"] is None else f"{pair['kappa']:.2f} ({pair['low']:.2f} – {pair['high']:.2f})"
        )
        names = " and ".join(pair["reviewers"])
        result.append(f"{names} agree on {pair['observed']:.1%} of {pair['n']:,} records, Cohen's κ {kappa}")
    left = {
        "unresolved": "edited differently by two reviewers, and unresolved",
        "changed": "changed since they were reviewed, and to be reviewed again",
        "gone": "in the log and no more in the corpus, though not rejected",
        "gone_rejected": "rejected, no more in the corpus, and in no figure here, as its manifest does not name them",
        "left_out": "rejected, and left out by the build",
        "coming_back": "left out by the build and rejected no more, so that the next build has them",
    }
    result += [f"{words}: {_listed(summary[name])}" for name, words in left.items() if summary[name]]
    return result


def acceptance(decisions: Collection[Decision], flagged: Set[str]) -> dict[str, dict[str, Any]]:
    """How many were accepted as they stood, of `all`, of those `flagged` by a filter, and of the `unflagged` ones.

    Args:
      flagged: ids of records.

    Returns:
      Of each `{"reviewed", "accepted", "rate", "low", "high"}`: Wilson's interval, 95 %.
    """
    return {
        "all": _acceptance(decisions),
        "flagged": _acceptance(one for one in decisions if one.id in flagged),
        "unflagged": _acceptance(one for one in decisions if one.id not in flagged),
    }


def acceptance_lines(parts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """`acceptance` in words, of each part in which something was reviewed."""
    words = {"flagged": "of records that filters doubt", "unflagged": "of records that no filter doubts"}
    return [
        f"{words[name]}: {part['accepted']:,} of {part['reviewed']:,}, {part['rate']:.1%} "
        f"({part['low']:.1%} – {part['high']:.1%})"
        for name, part in parts.items()
        if name in words and part["reviewed"]
    ]


def _acceptance(decisions: Iterable[Decision]) -> dict[str, Any]:
    verdicts = [decision.verdict for decision in decisions]
    accepted = verdicts.count(ACCEPTED)
    low, high = wilson(accepted, len(verdicts))
    rate = accepted / len(verdicts) if verdicts else None
    return {"reviewed": len(verdicts), "accepted": accepted, "rate": rate, "low": low, "high": high}


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED:,} more" if len(ids) > _NAMED else ""
    return f"{len(ids):,} ({', '.join(ids[:_NAMED])}{more})"

"""Precision and recall of the filters on cases labelled by hand, English and Thai, with the words that mislead.

`pytest -s` prints the table. A case that is believed in stays, whether or not its filter gets it right; MISSED names
those that are not.
"""

import json
from collections import defaultdict
from pathlib import Path

from data_pipeline.corpus.filters import near_text
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.registry import FILTERS

CASES = Path(__file__).resolve().parents[2] / "data" / "corpus_filters" / "cases.jsonl"
WORDS = {"image_mention": {"words": {}}}


def cases():
    return [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines()]


def pair_of(case, name="a", **changed):
    fields = {"question": "What is it?", "answer": "it", "image": "a.jpg", **case["pair"], **changed}
    return Pair(id=name, language=case["language"], **fields)


def reason(case):
    """Why the filter drops the case's pair; of two pairs, why one of them gives way."""
    name = case["filter"]
    options = FILTERS[name].options
    if "other" in case:
        pairs = [pair_of(case), pair_of(case, "b", **case["other"])]
        given_way = near_text.duplicates(pairs, **options).given_way
        return next((near_text.near_duplicate(pair, given_way[pair.id]) for pair in pairs if pair.id in given_way), "")
    brought = [case["evidence"]] if "evidence" in case else []
    return FILTERS[name].check(pair_of(case), *brought, **options)


def counted():
    """{(filter, language): [dropped rightly, dropped wrongly, kept wrongly, kept rightly]} and the cases that fail."""
    counts, wrong = defaultdict(lambda: [0, 0, 0, 0]), []
    for case in cases():
        language = case["language"] if case["language"] in ("en", "th") else "other"
        drop, found = case["expected"] == "drop", reason(case)
        counts[case["filter"], language][(0 if drop else 1) if found else (2 if drop else 3)] += 1
        if bool(found) != drop:
            wrong.append((case, found))
    return counts, wrong


def table(counts):
    lines = [f"{'filter':<26}{'language':<10}{'cases':>6}{'precision':>11}{'recall':>8}"]
    for (name, language), (right, wrongly, missed, kept) in sorted(counts.items()):
        precision, recall = right / max(1, right + wrongly), right / max(1, right + missed)
        lines.append(f"{name:<26}{language:<10}{right + wrongly + missed + kept:>6}{precision:>11.3f}{recall:>8.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    counts, wrong = counted()
    print(table(counts))
    for case, found in wrong:
        print(case["filter"], case["language"], case["expected"], case["pair"], case.get("other", ""), found)

"""A record as the page gets it: texts with their languages, what was decided, and nothing that a blind review hides."""

from collections.abc import Mapping
from typing import Any

from data_pipeline.records import images_of
from data_pipeline.review.content import Texts, content_key, earlier_turns, language_of, texts_of
from data_pipeline.review.corpus import Item
from data_pipeline.review.decisions import Verdict
from data_pipeline.review.log import REASONS


def view(item: Item, verdicts: Mapping[str, Verdict], *, reviewer: str, blind: bool, place: int) -> dict[str, Any]:
    """A JSON object; each text is `{"text", "lang"}`, and no image is named but by number.

    `content` is the key of what is on the screen: of the record as this reviewer edited it, where they did; `original`
    that of the record as it is in the corpus.

    Args:
      verdicts: of all reviewers, by name. Those of others are shown once this reviewer has decided, so that two judge
        apart from each other; in a blind review never, nor are flags.
      place: of the record among those under review, from 1.
    """
    record = item.record
    texts, mine, original = texts_of(record), verdicts.get(reviewer), content_key(record)
    shown = {
        "key": item.key,
        "id": record.id,
        "content": mine.content if mine and mine.texts else original,
        "original": original,
        "place": place,
        "images": len(images_of(record)),
        "texts": _texts(texts, item.language),
        "context": _text(record.context or "", item.language),
        "fact": _text(item.fact, item.language),
        "earlier": [{"role": role, **_text(text, item.language)} for role, text in earlier_turns(record)],
        "also": [_text(answer, item.language) for answer in record.answers or () if answer != texts.answer],
        "about": {"split": item.split, "topic": item.topic, "task": record.task or ""},
        "mine": None if mine is None else _verdict(mine, item.language),
    }
    if not blind:
        others = {name: verdict for name, verdict in verdicts.items() if name != reviewer and mine is not None}
        shown["flags"] = list(item.flags)
        shown["others"] = [{"reviewer": name, **_verdict(one, item.language)} for name, one in others.items()]
    return shown


def _verdict(verdict: Verdict, language: str) -> dict[str, Any]:
    texts = None if verdict.texts is None else _texts(verdict.texts, language)
    reason = REASONS.get(verdict.reason, "")
    return {"verdict": verdict.verdict, "reason": reason, "note": verdict.note, "texts": texts}


def _texts(texts: Texts, language: str) -> dict[str, Any]:
    return {name: None if text is None else _text(text, language) for name, text in texts._asdict().items()}


def _text(text: str, language: str) -> dict[str, str]:
    return {"text": text, "lang": language_of(text, language)}

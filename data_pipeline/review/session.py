"""A review in progress: which record a reviewer sees next, what they and others came to, and what they do.

Everything here is called by one thread. A record is in front of one reviewer at a time, or of two where it is shared:
who opened it has it for `LEASE` seconds, who decided keeps it. What is shown of a record is
`view`'s, HTTP is `app`'s.
"""

import datetime
import math
import time
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.marks import HALF_A_CHARACTER
from data_pipeline.review.content import Texts, check_texts, content_key, texts_of
from data_pipeline.review.corpus import Item, left_out
from data_pipeline.review.decisions import REJECTED, Decision, Verdict, by_record, decide
from data_pipeline.review.log import OTHER, REASONS, Entry, ReviewLog, check_fields, standing
from data_pipeline.review.order import ordered, shared_keys
from data_pipeline.review.summary import agreements
from data_pipeline.review.view import view
from vlm_jax.errors import InputError

LEASE = 600.0
"""Seconds for which a record that a reviewer opened is not given to another."""
_LONGEST_NAME, _LONGEST_NOTE, _LONGEST_TOKEN = 40, 2000, 100
_TEXTS = {"question": "", "answer": "", "reasoning": None}
_SENT = {"reviewer": "", "action": "", "token": "", "key": "", "content": "", "reason": "", "note": "", **_TEXTS}
_OF_ALL, _OF_A_RECORD = ("reviewer", "action", "token"), ("key", "content", "note")
_TAKEN: dict[str, tuple[str, ...]] = {
    "accept": _OF_A_RECORD,
    "reject": (*_OF_A_RECORD, "reason"),
    "edit": (*_OF_A_RECORD, *_TEXTS),
    "undo": (),
}
"""Fields of what is sent that an action takes, beside those of all."""
STEPS = ("here", "next", "previous", "undecided")


@dataclass(frozen=True)
class Options:
    """How a review is held.

    Attributes:
      sample: records shown that no filter doubts; 0: all.
      shared: the share (0 to 1) of records that two reviewers see.
      blind: what filters and other reviewers said is not shown.
      reviewer: the name the page takes where its address has none; '': it asks.
    """

    sample: int = 0
    shared: float = 0.2
    seed: int = 0
    blind: bool = False
    reviewer: str = ""


class Conflict(Exception):
    """What was asked for does not fit what is there now; the page is to load the record anew."""


def checked_name(reviewer: str) -> str:
    """A reviewer's name with one blank where there are several.

    Raises:
      InputError: no name, a long one, or one with characters that are not shown.
    """
    name = " ".join(unicodedata.normalize("NFC", reviewer).split())
    if not name or len(name) > _LONGEST_NAME or HALF_A_CHARACTER.search(name) or not name.isprintable():
        raise InputError(f"a reviewer's name has 1 to {_LONGEST_NAME} printable characters")
    return name


class Review:
    """The state of one review of one corpus."""

    def __init__(self, folder: Path, items: Sequence[Item], log: ReviewLog, options: Options):
        """
        Args:
          items: all of the corpus, as `read_items` gives them.
          log: open for adding to.
        """
        self.folder, self.options = folder, options
        self.items = ordered(items, sample=options.sample, seed=options.seed, blind=options.blind)
        self.by_key = {item.key: item for item in self.items}
        self._place = {item.key: place for place, item in enumerate(self.items)}
        self._shared = shared_keys(items, options.shared, options.seed)
        self._log = log
        self._by_token = {entry.token: entry for entry in log.entries if entry.token}
        self.leases: dict[str, dict[str, float]] = {}
        """By key of a record, who has it open, and until when."""
        self._keys = {item.record.id: item.key for item in self.items}
        self._corpus = {item.record.id for item in items}
        self._left_out = left_out(folder).keys() - self._corpus
        self._decisions: dict[str, Decision] = {}  # by key
        self._on_left_out: dict[str, Decision] = {}  # by id
        self._entries = by_record(standing(log.entries))
        for identifier in self._entries:
            self._decide(identifier)

    def start(self) -> dict[str, Any]:
        """What the page needs before it knows who reads it."""
        names = sorted({entry.reviewer for entry in self._log.entries})
        reasons = [{"key": key, "label": label} for key, label in REASONS.items() if key != OTHER]
        return {
            "blind": self.options.blind,
            "reviewer": self.options.reviewer,
            "reviewers": names,
            "reasons": reasons,
            "corpus": self.folder.name,
        }

    def step(self, reviewer: str, key: str, step: str) -> dict[str, Any]:
        """The record at, after or before another one, in this reviewer's order, or the next that waits for a decision.

        Args:
          key: where the reviewer is; '' or one that is not shown to them: before the first.
          step: one of `STEPS`.

        Returns:
          `item`, None where there is none such; and `progress`, where there is none with `elsewhere`.
        """
        reviewer = self.name(reviewer)
        if step not in STEPS:
            raise InputError(f"the step is one of {', '.join(STEPS)}")
        place = self._place.get(key, -1)
        found = None
        if step == "here":
            found = self.items[place] if place >= 0 and self._is_for(reviewer, self.items[place]) else None
            step = "undecided"
        if found is None and step == "previous":
            found = next((one for one in reversed(self.items[: max(place, 0)]) if self._is_for(reviewer, one)), None)
        elif found is None:
            after = self.items[place + 1 :]
            # Behind the last one, what was passed over on the way is left.
            after = [*after, *self.items[: place + 1]] if step == "undecided" else after
            waiting = (one for one in after if step == "next" or not self._decided(reviewer, one))
            found = next((one for one in waiting if self._is_for(reviewer, one)), None)
        return self._seen(reviewer, found)

    def act(self, sent: Mapping[str, Any]) -> dict[str, Any]:
        """Does what a reviewer chose, and writes it down.

        Args:
          sent: `reviewer`, `action`, `token`; but for an undo `key` and `content` of the record as it was shown, and a
            `note`; of a rejection the `reason`, of an edit `question`, `answer` and `reasoning`. What is sent again
            with its token is done once.

        Returns:
          The next record that waits for a decision, or after an undo the record it is about; as `step` does.

        Raises:
          InputError: what was sent is not to be done.
          Conflict: the record changed, another reviewer has it, the token is that of something else, or there is
            nothing to undo.
          OSError: it could not be written, and was not done.
        """
        _check_sent(sent)
        reviewer = self.name(sent["reviewer"])
        if (before := self._by_token.get(sent["token"])) is not None:
            if not self._is_that(before, reviewer, sent):
                raise Conflict("the token is that of another action, which was saved; this one was not")
            return self._after(before)  # sent again because the answer was lost
        entry = self._undo(reviewer, sent) if sent["action"] == "undo" else self._decision(reviewer, sent)
        self._log.append(entry)
        self._by_token[entry.token] = entry
        self._entries[entry.id] = standing([*self._entries.get(entry.id, []), entry])
        self._decide(entry.id)
        return self._after(entry)

    def name(self, reviewer: str) -> str:
        """The reviewer's name as it is written down; one that differs from a known one in capitals only is that one.

        Raises:
          InputError: it is no name (`checked_name`).
        """
        name = checked_name(reviewer)
        known = {entry.reviewer.casefold(): entry.reviewer for entry in self._log.entries}
        return known.get(name.casefold(), name)

    def _is_that(self, entry: Entry, reviewer: str, sent: Mapping[str, Any]) -> bool:
        """Whether what was sent is what an action of the log says; of an undo only the page knows no record."""
        if (entry.reviewer, entry.action) != (reviewer, sent["action"]):
            return False
        if entry.action == "undo":
            return True
        known = self._keys.get(entry.id)
        names = ("content", "reason", "note", *_TEXTS)
        return (known is None or known == sent.get("key", "")) and all(
            getattr(entry, name) == _value(sent, name) for name in names
        )

    def _after(self, entry: Entry) -> dict[str, Any]:
        """What the page shows when an action is in the log; `words` where that is not what the page expects."""
        if (key := self._keys.get(entry.id)) is not None:
            return self.step(entry.reviewer, key, "here" if entry.action == "undo" else "undecided")
        words = f"Undone: your decision on {entry.id}, which is "
        if entry.id in self._left_out:
            decision = self._on_left_out.get(entry.id)
            still = decision is not None and decision.verdict == REJECTED
            words += "left out of the corpus by a build; "
            words += "it stays so, as it is rejected still." if still else "the next build has it again."
        else:
            words += f"{'not among these records' if entry.id in self._corpus else 'no more in the corpus'}."
        return {**self.step(entry.reviewer, "", "undecided"), "words": words}

    def _decision(self, reviewer: str, sent: Mapping[str, Any]) -> Entry:
        item = self.by_key.get(sent.get("key", ""))
        if item is None or sent.get("content") not in self._shown_as(reviewer, item):
            raise Conflict("this record has changed or is gone; the page shows what is there now")
        if not self._is_for(reviewer, item):
            raise Conflict("another reviewer has decided on this record meanwhile; nothing was saved")
        action, reason, note = sent["action"], sent.get("reason", ""), _value(sent, "note")
        if len(note) > _LONGEST_NOTE:
            raise InputError(f"the note has {len(note):,} characters; {_LONGEST_NOTE:,} are taken")
        fields: dict[str, Any] = {"reason": reason, "note": note}
        if action == "edit":
            texts = Texts(sent.get("question", ""), sent.get("answer", ""), sent.get("reasoning"))
            if texts == texts_of(item.record):
                raise InputError("nothing was changed; accept the record instead")
            edited = check_texts(item.record, texts, self.folder)
            fields = {**texts._asdict(), "note": note, "edited_content": content_key(edited)}
        elif action == "reject":
            if reason not in REASONS:
                raise InputError(f"the reason is one of {', '.join(REASONS)}")
            if reason == OTHER and not note:
                raise InputError("write the reason")
        return Entry(_now(), reviewer, action, item.record.id, sent["content"], sent["token"], **fields)

    def _shown_as(self, reviewer: str, item: Item) -> set[str]:
        """Keys of the contents that a reviewer may have on the screen: the record, and what their own edit made."""
        mine = self._by_reviewer(item).get(reviewer)
        return {content_key(item.record), *([mine.content] if mine and mine.content else [])}

    def _undo(self, reviewer: str, sent: Mapping[str, Any]) -> Entry:
        for last in reversed(standing(self._log.entries)):
            if last.reviewer == reviewer:
                return Entry(_now(), reviewer, "undo", last.id, last.content, sent["token"])
        raise Conflict("there is nothing to undo")

    def _decide(self, identifier: str) -> None:
        entries, key = self._entries[identifier], self._keys.get(identifier)
        kept: dict[str, Decision]
        if key is not None:
            kept, name = self._decisions, key
            decision = decide(identifier, entries, content_key(self.by_key[key].record))
        elif identifier in self._left_out:
            kept, name = self._on_left_out, identifier
            decision = decide(identifier, entries, entries[-1].content) if entries else None
        else:
            return
        kept.pop(name, None)
        if decision is not None:
            kept[name] = decision

    def _by_reviewer(self, item: Item) -> Mapping[str, Verdict]:
        decision = self._decisions.get(item.key)
        return decision.by_reviewer if decision else {}

    def _decided(self, reviewer: str, item: Item) -> bool:
        return reviewer in self._by_reviewer(item)

    def _is_for(self, reviewer: str, item: Item) -> bool:
        """Whether a reviewer is shown a record: one they decided on, or one that fewer than it takes have or hold."""
        decided = self._by_reviewer(item)
        if reviewer in decided:
            return True
        leases = self.leases.get(item.key, {})
        now = time.monotonic()
        others = {name for name, until in leases.items() if until > now} | decided.keys()
        return len(others - {reviewer}) < (2 if item.key in self._shared else 1)

    def _elsewhere(self, reviewer: str) -> dict[str, int]:
        """How many `records` are not shown to a reviewer only since others have them open, and the `seconds` until the
        first of them is free if they leave it as it is; 0 where there is none."""
        now, waits = time.monotonic(), []
        for item in self.items:
            if self._is_for(reviewer, item):
                continue
            decided = self._by_reviewer(item).keys()
            ends = sorted(
                until
                for name, until in self.leases.get(item.key, {}).items()
                if until > now and name != reviewer and name not in decided
            )
            free = (2 if item.key in self._shared else 1) - len(decided)
            if free > 0:  # of those who have it open, all but free - 1 must have left
                waits.append(ends[len(ends) - free] - now)
        return {"records": len(waits), "seconds": math.ceil(min(waits, default=0))}

    def _seen(self, reviewer: str, item: Item | None) -> dict[str, Any]:
        for leases in self.leases.values():
            leases.pop(reviewer, None)
        if item is None:
            return {"item": None, "progress": {**self._progress(reviewer), "elsewhere": self._elsewhere(reviewer)}}
        self.leases = {key: leases for key, leases in self.leases.items() if leases}
        self.leases.setdefault(item.key, {})[reviewer] = time.monotonic() + LEASE
        return {"item": self._view(reviewer, item), "progress": self._progress(reviewer)}

    def _view(self, reviewer: str, item: Item) -> dict[str, Any]:
        verdicts, blind = self._by_reviewer(item), self.options.blind
        return view(item, verdicts, reviewer=reviewer, blind=blind, place=self._place[item.key] + 1)

    def _progress(self, reviewer: str) -> dict[str, Any]:
        mine = [item for item in self.items if self._is_for(reviewer, item)]
        place = {"decided": sum(self._decided(reviewer, item) for item in mine), "mine": len(mine)}
        place |= {"reviewed": len(self._decisions), "all": len(self.items)}
        if not self.options.blind:
            place["kappa"] = agreements([*self._decisions.values(), *self._on_left_out.values()])[1]
        return place


def _check_sent(sent: Mapping[str, Any]) -> None:
    """Raises InputError, with every error, where an action is none or has fields that it does not take."""
    check_fields(sent, _SENT, required=_OF_ALL)
    if (taken := _TAKEN.get(sent["action"])) is None:
        raise InputError(f"the action is one of {', '.join(_TAKEN)}")
    errors = [f"{sent['action']} takes no '{name}'" for name in sent if name not in (*_OF_ALL, *taken)]
    if len(sent["token"]) > _LONGEST_TOKEN:
        errors.append(f"the token has {len(sent['token']):,} characters; {_LONGEST_TOKEN} are taken")
    if any(HALF_A_CHARACTER.search(value) for value in sent.values() if isinstance(value, str)):
        errors.append("a text contains half of a surrogate pair; rewrite that character")
    if errors:
        raise InputError(errors)


def _value(sent: Mapping[str, Any], name: str) -> str | None:
    """A field as it is written down."""
    value = sent.get(name, _SENT[name])
    return value.strip() if name == "note" else value


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

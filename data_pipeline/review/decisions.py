"""What the log of a review comes to, for each record: what a build reads.

Of each reviewer the last action on a record stands, after undoing. How several reviewers are combined:

- one who rejects is enough: the record is rejected, with all reasons;
- else edits that are equal, or one edit where the others accept: the record is edited;
- edits that differ leave it unresolved, until the reviewers agree or one rejects;
- else it is accepted.

Actions on a record that has since changed (another text, another image under the same id) no longer count, with one
exception: a record that became what an edit made of it is the same record, edited.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.records import Record
from data_pipeline.review.content import Texts, content_key, with_texts
from data_pipeline.review.log import LOG, Entry, read_log, standing

ACCEPTED, REJECTED, EDITED, UNRESOLVED = "accepted", "rejected", "edited", "unresolved"
VERDICTS = (ACCEPTED, REJECTED, EDITED)
"""What one reviewer can come to."""
_VERDICT = {"accept": ACCEPTED, "reject": REJECTED, "edit": EDITED}


@dataclass(frozen=True)
class Verdict:
    """What one reviewer came to: one of `VERDICTS`, with the texts of an edit, or the reason for a rejection.

    Attributes:
      content: of an edit, the key of the content that it makes.
    """

    verdict: str
    texts: Texts | None = None
    reason: str = ""
    note: str = ""
    content: str = ""


@dataclass(frozen=True)
class Decision:
    """What all reviewers of a record came to.

    Attributes:
      verdict: ACCEPTED, REJECTED, EDITED or UNRESOLVED.
      texts: of EDITED: the new question, answer and reasoning.
      reasons: of REJECTED: a key of `log.REASONS` and the reviewer's note ('' without), for each who rejected.
      contents: keys of the record's content as it was reviewed, and as edits made it.
    """

    id: str
    verdict: str
    by_reviewer: dict[str, Verdict]
    contents: frozenset[str]
    texts: Texts | None = None
    reasons: tuple[tuple[str, str], ...] = ()

    def is_about(self, record: Record) -> bool:
        """Whether the record is still what was reviewed; a decision about another content is not to be followed."""
        return record.id == self.id and content_key(record) in self.contents

    def applied_to(self, record: Record) -> Record:
        """The record as the reviewers left it: rewritten where it was edited. Twice is as once."""
        return record if self.texts is None else with_texts(record, self.texts)


def read_decisions(corpus: str | Path) -> dict[str, Decision]:
    """The decisions in the log of a corpus folder, by record id; none where nothing was reviewed.

    Records are not read: whether a decision is about the record that is there now, `Decision.is_about` tells.

    Raises:
      InputError: a damaged line of the log, other than a last one that a crash cut off.
    """
    entries, _ = read_log(Path(os.path.abspath(corpus)) / LOG)
    return decisions_of(entries)


def decisions_of(entries: list[Entry]) -> dict[str, Decision]:
    """As `read_decisions`, of entries that were read; each about the content that its record was last seen with."""
    return {
        identifier: decide(identifier, of_record, of_record[-1].content)
        for identifier, of_record in by_record(standing(entries)).items()
    }


def by_record(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries by the id of their record, in order."""
    result: dict[str, list[Entry]] = {}
    for entry in entries:
        result.setdefault(entry.id, []).append(entry)
    return result


def decide(identifier: str, entries: list[Entry], content: str) -> Decision | None:
    """The decision of standing entries about one record as it is now; None where none of them is about that.

    Args:
      content: `content_key` of the record.
    """
    contents = _contents(entries, content)
    made = {entry.edited_content: entry.texts for entry in entries if entry.action == "edit"}
    by_reviewer = {}
    for entry in entries:
        if entry.content not in contents:
            continue
        verdict = Verdict(_VERDICT[entry.action], reason=entry.reason, note=entry.note)
        if entry.action == "edit":
            verdict = Verdict(EDITED, entry.texts, note=entry.note, content=entry.edited_content)
        elif entry.action == "accept" and entry.content in made:  # of what an edit made: the same edit
            verdict = Verdict(EDITED, made[entry.content], note=entry.note, content=entry.content)
        by_reviewer[entry.reviewer] = verdict
    if not by_reviewer:
        return None
    verdict, texts, reasons = _combined(list(by_reviewer.values()))
    return Decision(identifier, verdict, by_reviewer, frozenset(contents), texts, reasons)


def _combined(verdicts: list[Verdict]) -> tuple[str, Texts | None, tuple[tuple[str, str], ...]]:
    if rejected := [verdict for verdict in verdicts if verdict.verdict == REJECTED]:
        return REJECTED, None, tuple((verdict.reason, verdict.note) for verdict in rejected)
    edits = {verdict.texts for verdict in verdicts if verdict.texts is not None}
    if len(edits) > 1:
        return UNRESOLVED, None, ()
    return (EDITED, edits.pop(), ()) if edits else (ACCEPTED, None, ())


def _contents(entries: list[Entry], content: str) -> set[str]:
    """Keys of a record's content that are one another's edits, this one among them."""
    links = [{entry.content, entry.edited_content} for entry in entries if entry.action == "edit"]
    found = {content}
    while more := [link for link in links if link & found and not link <= found]:
        found = found.union(*more)
    return found

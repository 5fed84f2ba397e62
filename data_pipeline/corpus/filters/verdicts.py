"""What a judge said of a pair. Asking one, and that it is not the generator, is where teachers are opened."""

from dataclasses import dataclass

from data_pipeline.corpus.filters.pair import Pair


@dataclass(frozen=True)
class Verdict:
    """A judge's parsed answer.

    Attributes:
      accepted: whether image, question and answer go together.
      reason: in the judge's words, "" where it gave none.
      judge: the model that said so.
    """

    accepted: bool
    reason: str = ""
    judge: str = ""


def judged(pair: Pair, verdict: Verdict) -> str:
    """Why a judge refused a pair."""
    if verdict.accepted:
        return ""
    return f"refused by the judge{f' {verdict.judge}' if verdict.judge else ''}: {verdict.reason or 'no reason given'}"

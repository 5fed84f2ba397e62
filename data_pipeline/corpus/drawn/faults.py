"""Faults that the built-in teacher makes on purpose, as others make them by mistake: what quality stages are for.

Shares of its answers are spoilt, by a hash of what they are about, so that the same ones are in every run.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image

from data_pipeline.corpus.drawn import wordings
from data_pipeline.corpus.drawn.things import Thing
from data_pipeline.corpus.filters.pair import text_hash
from data_pipeline.corpus.filters.registry import nearest

FAULTS = {
    "facts": "a fact says of a thing what is true of another one",
    "questions": "a question asks for another fact than the one that is answered",
    "language": "a question is asked in the other language",
    "steps": "a chain of thought is about another thing, and comes to another answer first",
    "images": "an image shows another thing",
    "repeated_images": "an image is one that the topic has already, all but its bytes",
}
"""By name, what is spoilt."""


def errors(shares: Mapping[str, Any], where: str) -> list[str]:
    """What is wrong with {fault: share}, a line for each."""
    found = []
    for name, share in shares.items():
        if name not in FAULTS:
            found.append(f"{where}.faults: no fault {name!r}; {nearest(name, FAULTS)}")
        elif isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            found.append(f"{where}.faults.{name} is {share!r}; wanted a share from 0 to 1")
    return found


@dataclass(frozen=True)
class Faults:
    """Which answers are spoilt, and how.

    Attributes:
      shares: {one of FAULTS: share of the answers}.
      things: all that a wrong one is taken from.
    """

    shares: Mapping[str, float]
    seed: int
    things: Sequence[Thing]

    def spoils(self, fault: str, about: str) -> bool:
        """Whether an answer about this has the fault."""
        share = self.shares.get(fault, 0.0)
        return bool(share) and text_hash(f"{self.seed}/{fault}/{about}") / 2**64 < share

    def other(self, thing: Thing, about: str, kind: str = "name") -> Thing:
        """Another thing, of which something else is true."""
        others = [one for one in self.things if one.facts[kind] != thing.facts[kind]]
        return others[text_hash(f"{self.seed}/other/{about}") % len(others)]

    def encoded_anew(self, image: bytes, about: str) -> bytes:
        """The same to the eye, with other bytes."""
        anew = io.BytesIO()
        with PIL.Image.open(io.BytesIO(image)) as opened:
            opened.save(anew, "JPEG", quality=60 + text_hash(f"{self.seed}/quality/{about}") % 30)
        return anew.getvalue()

    def facts(self, thing: Thing, facts: list[dict[str, Any]], statements: Mapping[str, str]) -> None:
        """Spoils facts of a thing, as the teacher answers them, in place."""
        for fact in facts:
            kind = fact["aspect"]
            if self.spoils("facts", f"{thing.key}/{kind}"):
                wrong = self.other(thing, kind + thing.key, kind).facts[kind]
                known = {name: english for name, (english, _) in thing.facts.items()}
                fact["statement"] = statements[kind].format(**{**known, kind: wrong[0]})
                fact["answers"] = dict(zip(("en", "th"), wrong, strict=True))

    def pairs(
        self, thing: Thing, asked: Mapping[str, Any], pairs: list[dict[str, str]], chain: Callable[[Thing], str]
    ) -> None:
        """Spoils questions about a fact of a thing in place.

        Args:
          asked: what the teacher was asked from.
          chain: a chain of thought that is about this thing.
        """
        kind, language = asked["aspect"], asked["language"]
        if asked["split"] != "train":
            return  # what is held out is to be asked rightly: it says what the rest is worth
        for number, pair in enumerate(pairs, asked["first"]):
            about = f"{thing.key}/{kind}/{language}/{asked['form']}/{number}"
            if self.spoils("questions", about):
                kinds = [one for one in wordings.FACTS if one != kind]
                every = wordings.questions(kinds[text_hash(about) % len(kinds)], language, held_out=False)
                pair["question"] = every[number % len(every)]
            if self.spoils("language", about):
                every = wordings.questions(kind, "th" if language == "en" else "en", held_out=False)
                pair["question"] = every[number % len(every)]
            if pair["steps"] and self.spoils("steps", about):
                wrong = self.other(thing, about, kind)
                answer = wrong.facts[kind][0 if language == "en" else 1]
                pair["steps"] = f"{chain(wrong)}\n{'Answer:' if language == 'en' else 'คำตอบ:'} {answer}"

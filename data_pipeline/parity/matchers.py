"""When an answer counts as right beside the teacher's own: by the rules that answers are scored with.

A pair has one accepted answer. VQA accuracy counts how many of ten people gave an answer, so that one stands for all
ten; as EvalAI has it, since VQA's own code compares letter by letter where all ten agree. Answers in which a rule
leaves nothing would fit everything, or nothing: `says_nothing` finds them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import vlm_jax

JUDGE = "judge"


@dataclass(frozen=True)
class Matcher:
    """One rule.

    Attributes:
      metric: as `vlm_jax.score` takes it.
      least: the score from which on an answer is right.
      people: how many accepted answers the one stands for.
      words: what it says, for the report.
    """

    metric: str
    least: float
    words: str
    people: int = 1

    def right(self, said: str, answer: str) -> bool:
        return vlm_jax.score(self.metric, said, [answer] * self.people) >= self.least


MATCHERS: Mapping[str, Matcher | None] = {
    "exact": Matcher("exact", 1.0, "the same characters"),
    "normalised": Matcher("normalised", 1.0, "the same but for case, spaces and punctuation, in any language"),
    "contains": Matcher("contains", 1.0, "the answer stands in what was said, word for word"),
    "vqa": Matcher("vqa_evalai", 1.0, "the same by VQA's rules, for which articles do not count", 10),
    "anls": Matcher("anls", 0.5, "at least half of the characters are the same, in order (ANLS of 0.5 or more)"),
    "relaxed": Matcher("relaxed_accuracy", 1.0, "the same, or a number within 5 %"),
    "mpa_substring": Matcher(
        "mpa_substring",
        1.0,
        "the answer's letters stand anywhere in what was said, '1' in '2013' too (MPA's)",
    ),
    JUDGE: None,
}
"""By the name of `config.identify.matcher`; a judge is a teacher that is asked."""


def says_nothing(answer: str) -> bool:
    """Whether nothing is left of an answer once case, spaces and punctuation are gone."""
    return not any(letter.isalnum() for letter in answer)

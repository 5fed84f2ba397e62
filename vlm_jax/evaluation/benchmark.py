"""What a benchmark is: how its questions are asked, what answers are scored by, and what is handed in.

The benchmarks themselves are entries of the table in `benchmarks`. Nothing here reads a file or loads JAX: files are
the readers' of `data_pipeline.sources`, metrics are known by name.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vlm_jax.evaluation.metrics import infoseek

RULES = ("mean", "harmonic_mean")
"""How the scores of groups become one: their mean, or of two the harmonic mean as InfoSeek's script rounds it."""


@dataclasses.dataclass(frozen=True)
class Split:
    """A published part of a benchmark.

    Attributes:
      answered: whether its answers are published; else it can only be handed in.
      size: how many questions it has; 0 where that is not known here.
    """

    answered: bool = True
    size: int = 0


@dataclasses.dataclass(frozen=True)
class Headline:
    """The one figure that is published, where it is not the mean over questions.

    Attributes:
      rule: one of `RULES`, of the scores of the groups.
      group: by which questions are told apart.
      values: the groups that count.
    """

    rule: str
    group: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Submission:
    """The file that an evaluation server takes: a list of objects, or one object a line.

    Attributes:
      id_field: of the official file, which holds what a question is known by; also the field it is handed in under.
      answer_field: of the answer.
      lines: JSON lines instead of one JSON list.
    """

    id_field: str
    answer_field: str = "answer"
    lines: bool = False

    @property
    def file(self) -> str:
        return "submission.jsonl" if self.lines else "submission.json"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """An entry of the table.

    Attributes:
      name: as `--benchmark` takes it; title: as people write it.
      files: what `--data` names.
      form: the reader, of `data_pipeline.sources.FORMATS`.
      splits: what is published.
      metric: by its name; also: further ones that are reported beside it.
      template, suffix: as `data_pipeline.prompting.Prompt`.
      asked_as: where template, suffix and `max_new_tokens` come from.
      max_new_tokens: an answer may have.
      visual_tokens: (least, most) of an image that are recommended, for `--visual_tokens=recommended`.
      tokens_from: where those come from.
      groups: by which questions are told apart, as the reader names them.
      answerability: whether it is reported how well questions without an answer are told, as VizWiz does.
      headline: None for the mean over questions.
      submission: None where nothing is handed in anywhere.
    """

    name: str
    title: str
    files: str
    form: str
    metric: str
    splits: Mapping[str, Split]
    asked_as: str
    tokens_from: str
    visual_tokens: tuple[int, int]
    max_new_tokens: int
    also: tuple[str, ...] = ()
    template: str = ""
    suffix: str = ""
    groups: tuple[str, ...] = ()
    answerability: bool = False
    headline: Headline | None = None
    submission: Submission | None = None


def headline_of(benchmark: Benchmark, by: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """The published figure from the scores of groups; None where it is the mean over questions.

    The harmonic mean is InfoSeek's: of percentages rounded to two decimals, and 0 where one of them is. Where a group
    has no question, `missing` names it and there is no `value`.

    Args:
      by: {group: {value: {"mean": score, …}}}, as a report has it.
    """
    rule = benchmark.headline
    if rule is None:
        return None
    groups = by.get(rule.group, {})
    about = {"rule": rule.rule, "group": rule.group}
    if missing := [value for value in rule.values if value not in groups]:
        return {**about, "missing": missing}
    scores = [groups[value]["mean"] for value in rule.values]
    return {**about, "parts": dict(zip(rule.values, scores, strict=True)), "value": combined(rule.rule, scores)}


def combined(rule: str, scores: Sequence[float]) -> float:
    """Scores of groups as one, by one of `RULES`."""
    if rule == "mean":
        return sum(scores) / len(scores)
    return infoseek.final_score(*scores)

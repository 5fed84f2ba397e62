"""The metrics by name, and the one function that scores by any of them."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import (
    anls,
    any_language,
    bem,
    chain_of_thought,
    encyclopedic_vqa,
    infoseek,
    judge,
    mpa_substring,
    multiple_choice,
    relaxed,
    squad,
    vizwiz,
    vqa,
)

FINAL_ANSWER = "final_answer:"
"""Before a metric's name: only what a chain of thought comes to is scored (`chain_of_thought.final_answer`)."""
_LACKING = {
    "bem": "needs the folder of a BertForSequenceClassification, as bem=… or --bem",
    "ask": "needs somebody to ask, as ask=…; in scripts/evaluate.py --judge=kind=…,model=… beside another metric",
    "question": "needs the question's text, as question=…",
}

_UNDECIDED = {
    **dict.fromkeys(
        ("accuracy", "acc"),
        "there are several: normalised for your own data, vqa_official of VQAv2, relaxed_accuracy of ChartQA, …; see "
        "docs/evaluation.md",
    ),
    **dict.fromkeys(
        ("vqa", "vqa_accuracy", "vqa_score"),
        "there are three: vqa_official (VQAv2, OK-VQA), vqa_evalai (TextVQA, lmms-eval) and vqa_vlmevalkit",
    ),
    **dict.fromkeys(("exact_match", "em"), "there are three: exact, normalised (case and punctuation) and squad_em"),
    "f1": "did you mean 'squad_f1'?",
}
"""What people call a metric by, where that says too little."""

Answers = str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]]


@dataclass(frozen=True)
class Metric:
    """A way to score an answer. To add one, write its function in a file of its own and enter it in `METRICS`.

    Attributes:
      about: one line for people who choose one.
      function: (prediction, accepted answers, what it `takes`) → a score in [0, 1].
      takes: keywords of `score` that it looks at: question, options, bem, ask. Those it `needs` may not be empty.
      people: the fewest accepted answers that it can compare with.
      ranges: whether an accepted answer may be a mapping with a range.
      version: goes up when the same texts come to be scored otherwise.
    """

    name: str
    about: str
    function: Callable[..., float]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    people: int = 1
    ranges: bool = False
    version: int = 1

    @property
    def of_texts(self) -> bool:
        """Whether a prediction and one accepted answer are all it looks at."""
        return not self.takes and self.people == 1


def _best(compare: Callable[[str, str], float]) -> Callable[..., float]:
    """The best over the accepted answers."""
    return lambda prediction, answers: max(compare(prediction, answer) for answer in answers)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("exact", "equal, character for character", _best(any_language.exact)),
        Metric(
            "normalised",
            "equal but for case, white space and punctuation around, in any language",
            _best(any_language.normalised),
            version=2,
        ),
        Metric(
            "contains", "the answer stands in the prediction as whole words", _best(any_language.contains), version=2
        ),
        Metric("vqa_official", "VQA accuracy as VQAv2 and OK-VQA compute it, of ten answers", vqa.official, people=2),
        Metric("vqa_evalai", "VQA accuracy as TextVQA and lmms-eval compute it", vqa.evalai, people=2),
        Metric("vqa_vlmevalkit", "VQA accuracy as VLMEvalKit computes it", vqa.vlmevalkit, people=2),
        Metric("vizwiz", "VQA accuracy as VizWiz computes it", vizwiz.vizwiz, people=2),
        Metric("anls", "edit distance, of ST-VQA and DocVQA, as m4c computes it", anls.anls),
        Metric("anls_lmms", "edit distance as lmms-eval computes it", anls.anls_lmms),
        Metric("relaxed_accuracy", "ChartQA: numbers may be off by 5 %", _best(relaxed.relaxed_accuracy)),
        Metric("infoseek", "InfoSeek: exact match, numbers by range", infoseek.infoseek, ranges=True),
        Metric("squad_em", "SQuAD's exact match, also ViQuAE's", squad.exact_match),
        Metric("squad_f1", "SQuAD's F1 over words, also ViQuAE's", squad.f1),
        Metric(
            "encyclopedic_vqa",
            "Encyclopedic-VQA: exact match, else BEM where there is a folder",
            encyclopedic_vqa.encyclopedic_vqa,
            takes=("question", "bem"),
        ),
        Metric(
            "bem",
            "exact match, else a BERT that tells whether answers mean the same",
            bem.bem,
            takes=("question", "bem"),
            needs=("bem", "question"),
        ),
        Metric(
            "multiple_choice",
            "the option that a reply chooses, by letter or text",
            multiple_choice.multiple_choice,
            takes=("question", "options"),
            version=2,
        ),
        Metric("judge", "a model says yes, no or partly", judge.judge, takes=("question", "ask"), needs=("ask",)),
        Metric("mpa_substring", "MPA's matching, to reproduce its table alone", _best(mpa_substring.mpa_substring)),
    )
}


def score(
    metric: str,
    prediction: str,
    answers: Answers,
    question: str = "",
    *,
    options: Sequence[str] | Mapping[str, str] | None = None,
    bem: str = "",
    ask: Callable[[str], str] | None = None,
) -> float:
    """How right a prediction is, in [0, 1]: the best over the accepted answers, or their vote.

    Args:
      metric: a key of `METRICS`, which has a line about each; "final_answer:" before it scores only what a chain of
        thought comes to.
      answers: an accepted answer or several; for infoseek also {"range": [low, high]}, or the JSON text of that.
      question: its text, for metrics that read it.
      options: of multiple choice, where they are not in the question: texts, or {letter: text}.
      bem: folder of the model that bem needs, and encyclopedic_vqa may have.
      ask: prompt → reply, for judge.

    Raises:
      InputError: an unknown metric, something that it needs is missing, or answers that it cannot compare with.
    """
    values = {"question": question, "options": options, "bem": bem, "ask": ask}
    if wrong := error_in(metric, **values):
        raise InputError(f"metric {metric!r}: {wrong}")
    one, extracts = find(metric)
    accepted = [answers] if isinstance(answers, str | Mapping) else list(answers)
    if not accepted:
        raise InputError("no accepted answer to score against")
    for text in (prediction, *accepted):
        if not isinstance(text, str | Mapping) or isinstance(text, Mapping) and not one.ranges:
            ranges = " or ranges" if one.ranges else ""
            raise InputError(f"metric {metric!r}: predictions and answers are texts{ranges}, and one is {text!r}")
    if len(accepted) < one.people:
        raise InputError(
            f"metric {metric!r}: leaves out each accepted answer in turn, and there is one alone; take another metric"
        )
    said = chain_of_thought.final_answer(prediction) if extracts else prediction
    return one.function(said, accepted, **{name: values[name] for name in one.takes})


def find(name: str) -> tuple[Metric, bool]:
    """The metric of a name, and whether only the final answer is scored.

    Raises:
      InputError: there is none; the line has the nearest.
    """
    if wrong := error_in(name):
        raise InputError(f"metric {name!r}: {wrong}")
    return METRICS[name.removeprefix(FINAL_ANSWER)], name.startswith(FINAL_ANSWER)


def label(name: str) -> str:
    """The name with its version, as tables carry it: vqa_evalai/1."""
    one, extracts = find(name)
    return f"{FINAL_ANSWER if extracts else ''}{one.name}/{one.version}"


def error_in(name: str, **values: Any) -> str:
    """What is wrong with a metric's name, the end of an error line; "" where nothing is.

    Args:
      values: of keywords of `score`. What the metric does not look at is an error, but for the question, which all may
        be given; and so is what it needs and is empty here.
    """
    bare = name.removeprefix(FINAL_ANSWER)
    if bare not in METRICS:
        if bare in _UNDECIDED:
            return _UNDECIDED[bare]
        *before, last = bare.rpartition(":")
        prefix = difflib.get_close_matches("".join(before), [FINAL_ANSWER], n=1)
        near = difflib.get_close_matches(last, METRICS, n=1)
        meant = f"{''.join([*prefix, *near])}" if near else ""
        return f"did you mean {meant!r}?" if meant else f"there are {', '.join(METRICS)}"
    one = METRICS[bare]
    unread = [key for key, value in values.items() if value and key not in ("question", *one.takes)]
    lacking = [key for key in one.needs if key in values and not values[key]]
    return f"has no use for {unread[0]}" if unread else _LACKING[lacking[0]] if lacking else ""


def described() -> str:
    """Every metric that texts and folders are enough for, with its line, as --help has it."""
    return "; ".join(f"{metric.name}: {metric.about}" for metric in METRICS.values() if "ask" not in metric.needs)

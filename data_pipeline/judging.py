"""A whole evaluation before a judge: a teacher says of every answer whether it is right, and how far it agrees.

What is asked and how a reply is read is `vlm_jax.evaluation.metrics.judge`'s. Every reply is kept in a store, so an
interrupted run goes on where it was, and a second one costs nothing until the prompt, the judge or an answer changes.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipeline.review.agreement import cohens_kappa
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.prices import prices_of
from data_pipeline.teachers.request import CallFailed, Failure, Reply, Request
from data_pipeline.teachers.sending import Progress
from data_pipeline.teachers.settings import open_teacher
from data_pipeline.teachers.store import Store
from data_pipeline.teachers.teacher import Teacher
from vlm_jax.checkpoint.files import write_json, write_text
from vlm_jax.evaluation import metrics
from vlm_jax.evaluation.metrics import judge
from vlm_jax.evaluation.metrics.chain_of_thought import final_answer
from vlm_jax.evaluation.report.summary import cluster
from vlm_jax.evaluation.runner import Prediction
from vlm_jax.evaluation.statistics import interval

STAGE = "judge_answers"
NOT_ASKED = "not asked"
_RIGHT_ABOVE = 0.5
"""A score above it counts as right where judge and metric are compared, so "partly" does not."""


@dataclass(frozen=True)
class Judgement:
    """What the judge said of one prediction, a line of `judgements.jsonl`.

    Attributes:
      verdict: yes, partly or no; None where there is none.
      score: 1, 0.5 or 0, and 0 of a question that could not be asked; None of an answer that is not judged.
      unjudged: why there is no verdict: `NOT_ASKED`, or a reason of `teachers.request`; "not what was asked for" is a
        reply that is no verdict. "" elsewhere.
      detail: what was said instead.
    """

    id: str
    verdict: str | None
    score: float | None
    unjudged: str = ""
    detail: str = ""


def judged(
    predictions: Sequence[Prediction],
    settings: Mapping[str, Any],
    folder: Path,
    *,
    prices: Mapping[str, Any] | None = None,
    max_cost: float | None = None,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """Has all predictions of an evaluation judged; writes `judge.json` and `judgements.jsonl`. Returns the former.

    Args:
      settings: of the teacher that judges, as `config.teachers` has them: {"kind": "openai_compatible", "model": …}.
      folder: where the files go, and the store, in `judge/`.
      prices, max_cost: as `config.prices` has them, and the dollars that all calls stay below.

    Raises:
      InputError: settings that cannot be, a judge that does not answer, or the cost is reached; the same call goes on.
      Stopped: Ctrl-C.
    """
    teacher = open_teacher(settings, "the judge", wanted="text")
    teacher.ready()
    with (
        contextlib.closing(Store(folder / "judge")) as store,
        Asker(store, prices_of(prices or {}), max_cost, progress) as asker,
    ):
        judgements = verdicts(predictions, teacher, asker)
        summary = summarise(predictions, judgements)
        summary |= {
            "judge": teacher.model,
            "versions": store.versions().get(teacher.model, []),
            "parameters": {**teacher.parameters("text"), **_PARAMETERS},
            "prompt": judge.PROMPT.read_text(encoding="utf-8"),
            "prompt_sha256": judge.prompt_digest(),
        }
    lines = [json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in judgements]
    write_text(folder / "judgements.jsonl", "".join(lines))
    write_json(folder / "judge.json", summary)
    return summary


_PARAMETERS = {"temperature": 0.0}
"""A verdict is to be the same when it is asked for again."""


def verdicts(predictions: Sequence[Prediction], teacher: Teacher, asker: Asker) -> list[Judgement]:
    """The judge's word on every prediction, in order. A reply that is no verdict is asked for three times in all.

    Questions that could not be asked are wrong without the judge. Where the metric looks at the end of a chain of
    thought, so does the judge.
    """
    asked = [one for one in predictions if not one.error]
    replies = asker.ask(teacher, [_request(one) for one in asked], _check) if asked else []
    by_id = {one.id: reply for one, reply in zip(asked, replies, strict=True)}
    return [_judgement(one, by_id.get(one.id)) for one in predictions]


def summarise(predictions: Sequence[Prediction], judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Counts, the mean over what has a score with its interval over images, and the agreement with the metric that
    scored the predictions.

    `unjudged` counts answers without a verdict by reason, and `unjudged_ids` names them: they are in no mean.
    `agreement` is over the answers with a verdict: the share on which judge and metric say the same (right where above
    one half), Cohen's kappa with its 95 % interval, None where undefined, and the ids on which they differ.
    """
    scored = [pair for pair in zip(judgements, predictions, strict=True) if pair[0].score is not None]
    scores = [one.score for one, _ in scored if one.score is not None]
    low, high = interval(scores, [cluster(prediction) for _, prediction in scored])
    unjudged = [one for one in judgements if one.score is None]
    pairs = [
        (one.id, one.score > _RIGHT_ABOVE, bool(judgement.score and judgement.score > _RIGHT_ABOVE))
        for one, judgement in zip(predictions, judgements, strict=True)
        if judgement.verdict is not None
    ]
    kappa = cohens_kappa([by_metric for _, by_metric, _ in pairs], [by_judge for _, _, by_judge in pairs])
    return {
        "n": len(judgements),
        "mean": sum(scores) / len(scores) if scores else None,
        "low": low,
        "high": high,
        "scored": len(scores),
        "verdicts": dict(Counter(one.verdict for one in judgements if one.verdict is not None)),
        NOT_ASKED.replace(" ", "_"): sum(one.unjudged == NOT_ASKED for one in judgements),
        "unjudged": dict(Counter(one.unjudged for one in unjudged)),
        "unjudged_ids": [one.id for one in unjudged],
        "agreement": {
            "metric": metrics.label(predictions[0].metric) if predictions else None,
            "n": kappa.n,
            "share": kappa.observed,
            "kappa": kappa.kappa,
            "low": kappa.low,
            "high": kappa.high,
            "right_by_metric_alone": [id for id, by_metric, by_judge in pairs if by_metric and not by_judge],
            "right_by_judge_alone": [id for id, by_metric, by_judge in pairs if by_judge and not by_metric],
        },
    }


def _request(one: Prediction) -> Request:
    _, extracts = metrics.find(one.metric)
    said = final_answer(one.prediction) if extracts else one.prediction
    text = judge.prompt(said, one.answers, one.question)
    return Request("text", text, schema=judge.SCHEMA, parameters=_PARAMETERS, stage=STAGE)


def _check(request: Request, reply: Reply) -> None:
    if judge.verdict(reply.text or "") is None:
        raise CallFailed("not what was asked for", f"no verdict: {(reply.text or '')[:200]!r}")


def _judgement(one: Prediction, reply: Reply | Failure | None) -> Judgement:
    if reply is None:
        return Judgement(one.id, None, 0.0, NOT_ASKED, one.error or "")
    if isinstance(reply, Failure):
        return Judgement(one.id, None, None, reply.reason, reply.detail)
    verdict = judge.verdict(reply.text or "")
    if verdict is None:  # of a store that an earlier version wrote
        return Judgement(one.id, None, None, "not what was asked for", f"no verdict: {(reply.text or '')[:200]!r}")
    return Judgement(one.id, verdict, judge.SCORES[verdict])

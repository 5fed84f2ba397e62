"""A judge over a real connection: verdicts once paid for, nonsense counted, agreement with the metric told."""

import asyncio
import json

import pytest

from data_pipeline import judging
from data_pipeline.answering_models import AnsweringModel
from data_pipeline.evaluation_questions import read
from data_pipeline.evaluation_run import ask
from data_pipeline.evaluation_settings import Evaluation, errors_of, with_defaults
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.settings import open_teacher
from data_pipeline.teachers.store import Store
from tests.data_pipeline.teachers.teacher_server import TeacherServer
from vlm_jax.errors import InputError
from vlm_jax.evaluation import report, runner
from vlm_jax.evaluation.metrics import judge
from vlm_jax.evaluation.runner import Prediction

VERDICTS = {"crimson": "yes", "half red": "partly", "blue": "no", "red": "yes", "no idea": "no", "odd": "???"}


def answered(prompt):
    """A judge by what stands in the prompt."""
    said = next(line for line in prompt.splitlines() if line.startswith("Answer to grade: "))
    said = json.loads(said.removeprefix("Answer to grade: "))
    verdict = VERDICTS[said]
    return "I cannot say." if verdict == "???" else json.dumps({"verdict": verdict})


def prediction(id, said, score, **more):
    return Prediction(id, "What colour is it?", said, ["red"], score, "normalised", {}, **more)


PREDICTIONS = [
    prediction("a", "red", 1.0),
    prediction("b", "crimson", 0.0),
    prediction("c", "blue", 0.0),
    prediction("d", "half red", 0.0),
    prediction("e", "odd", 0.0),
    prediction("f", "", 0.0, error="f.png: no such image"),
    prediction("g", "no idea", 0.0),
]


@pytest.fixture
def server():
    with TeacherServer(answered) as server:
        yield server


def test_verdicts_agreement_and_what_was_asked_are_reported(server, tmp_path):
    summary = judging.judged(PREDICTIONS, server.openai(), tmp_path)
    assert summary == json.loads((tmp_path / "judge.json").read_text(encoding="utf-8"))
    assert (summary["n"], summary["scored"], summary["not_asked"]) == (7, 6, 1)
    assert summary["verdicts"] == {"yes": 2, "no": 2, "partly": 1}
    assert summary["mean"] == pytest.approx(2.5 / 6) and summary["low"] < summary["mean"] < summary["high"]
    assert (summary["unjudged"], summary["unjudged_ids"]) == ({"not what was asked for": 1}, ["e"])
    agreement = summary["agreement"]
    assert (agreement["metric"], agreement["n"], agreement["share"]) == ("normalised/2", 5, 0.8)
    # Both right: 1 of 5, by chance (1 · 2 + 4 · 3) / 25; so (0.8 − 0.56) / (1 − 0.56).
    assert agreement["kappa"] == pytest.approx(0.24 / 0.44)
    assert (agreement["right_by_judge_alone"], agreement["right_by_metric_alone"]) == (["b"], [])
    assert (summary["judge"], summary["versions"]) == ("test", ["test-0001"])
    assert summary["prompt"] == judge.PROMPT.read_text(encoding="utf-8")
    assert summary["prompt_sha256"] == judge.prompt_digest() and summary["parameters"]["temperature"] == 0.0
    lines = [json.loads(line) for line in (tmp_path / "judgements.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in lines] == list("abcdefg")
    assert [line["score"] for line in lines] == [1, 1, 0, 0.5, None, 0, 0]
    assert "I cannot say." in lines[4]["detail"] and "no such image" in lines[5]["detail"]


def test_what_was_judged_is_not_asked_again_and_nonsense_three_times(server, tmp_path):
    first = judging.judged(PREDICTIONS, server.openai(), tmp_path)
    asked = server.prompts.total()
    assert asked == 5 + 3 and max(server.prompts.values()) == 3
    body = server.calls[0][1]
    assert body["response_format"]["json_schema"]["schema"] == judge.SCHEMA and body["temperature"] == 0.0
    assert judging.judged(PREDICTIONS, server.openai(), tmp_path) == first and server.prompts.total() == asked
    changed = [*PREDICTIONS[:-1], prediction("g", "red", 1.0)]  # as another question was answered already
    assert judging.judged(changed, server.openai(), tmp_path)["verdicts"]["yes"] == 3
    assert server.prompts.total() == asked


def test_the_judge_sees_what_the_metric_scores(server, tmp_path):
    said = "It is glowing.\nAnswer: crimson"
    one = Prediction("a", "Q?", said, ["red"], 0.0, "final_answer:normalised", {})
    summary = judging.judged([one], server.openai(), tmp_path)
    assert summary["verdicts"] == {"yes": 1} and summary["agreement"]["metric"] == "final_answer:normalised/2"
    assert summary["agreement"]["kappa"] == 0.0  # they differ on all there is


def test_a_judge_that_cannot_be_asked_and_a_failure_of_one_call_are_told(server, tmp_path):
    with pytest.raises(InputError, match="the judge: no setting 'modle'"):
        judging.judged(PREDICTIONS, {**server.openai(), "modle": "x"}, tmp_path)
    with pytest.raises(InputError, match="does not know the stage 'judge_answers'"):
        judging.judged(PREDICTIONS, {"kind": "drawn"}, tmp_path)

    async def at_once(seconds):
        await asyncio.sleep(0)

    def cut(response):
        return {**response, "choices": [{**response["choices"][0], "finish_reason": "length"}]}

    server.faults.append(cut)
    teacher = open_teacher(server.openai(at_once=1), "the judge", wanted="text")
    with Asker(Store(tmp_path / "store"), wait=at_once) as asker:
        found = judging.verdicts(PREDICTIONS[:2], teacher, asker)
    assert [(one.score, one.unjudged) for one in found] == [(None, "cut off"), (1.0, "")]


def test_the_interval_is_over_images():
    said = [prediction(str(number), "red", 1.0, images="one") for number in range(8)]
    verdicts = [
        judging.Judgement(one.id, "yes", 1.0) if int(one.id) % 2 else judging.Judgement(one.id, "no", 0.0)
        for one in said
    ]
    summary = judging.summarise(said, verdicts)
    assert (summary["mean"], summary["low"], summary["high"]) == (0.5, 0.0, 1.0)


def test_nothing_to_judge_is_no_agreement(server, tmp_path):
    summary = judging.judged([PREDICTIONS[5]], server.openai(), tmp_path)
    assert (summary["mean"], summary["agreement"]["n"], summary["agreement"]["kappa"]) == (0.0, 0, None)
    assert judging.judged([], server.openai(), tmp_path)["mean"] is None
    assert not server.calls


def test_an_evaluation_has_its_answers_judged_and_tells_how_far_the_metric_agrees(server, tmp_path):
    own, general = tmp_path / "own.jsonl", tmp_path / "general.jsonl"
    for path, count in ((own, 2), (general, 1)):
        turns = [{"role": "user", "content": "What colour is it?"}, {"role": "assistant", "content": "red"}]
        lines = [json.dumps({"id": f"{path.stem}{number}", "messages": turns}) + "\n" for number in range(count)]
        path.write_text("".join(lines))
    settings = server.openai()
    named = ",".join(f"{name}={value}" for name, value in settings.items())
    evaluation = Evaluation("m", str(own), str(tmp_path / "out"), general=str(general), judge=named)
    evaluation = with_defaults(evaluation)
    asked = read(evaluation, print)
    model = AnsweringModel(runner.texts(lambda batch: ["crimson", "blue", "red"]), {}, "nothing")
    summary = ask(evaluation, asked, model)
    assert (summary["judge"]["mean"], summary["judge"]["n"], summary["mean"]) == (0.5, 2, 0.0)  # of the general, none
    assert summary["judge"]["agreement"]["right_by_judge_alone"] == ["own0"]
    told = "judged by test: 50.0%"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["judge"] == summary["judge"]
    assert told in report.table(summary) and told in (tmp_path / "out" / "report.html").read_text()
    assert server.prompts.total() == 2


def test_a_judge_that_cannot_be_is_refused_before_anything_is_asked():
    evaluation = with_defaults(Evaluation("m", "b.jsonl", "o", judge="kind=openai_compatible,modle=x"))
    assert any("--judge" in line and "modle" in line for line in errors_of(evaluation))
    evaluation = with_defaults(Evaluation("m", "b.jsonl", "o", judge="drawn"))
    assert errors_of(evaluation) == ["--judge: 'drawn' has no value; wanted kind=…,model=…"]

"""Validation by the model's own answers: which checkpoint is best, and when a run ends."""

import json

import pytest

from data_pipeline.training_run import run
from tests.consoles import Lines
from tests.tiny_models import PHOTOS
from tests.training.test_hooks import Log, state
from vlm_jax.errors import InputError
from vlm_jax.training.config import default_config
from vlm_jax.training.hooks import EarlyStop, Measures, Validation


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_best_is_where_answers_score_highest_whatever_the_loss():
    scores, losses, log = iter([0.2, 0.6, 0.5, 0.6, 0.4]), iter([3.0, 2.0, 1.0, 0.5, 0.2]), Log()
    measures = Measures(lambda parameters: next(losses), lambda step, parameters: next(scores), "normalised")
    validation = Validation(measures, every=1, log=log, earlier=[4.0], earlier_scores=[0.1])
    stop = EarlyStop(validation, patience=2, log=log)
    for step in range(1, 5):
        now = state(step)
        validation(now)
        validation(now)
        stop(now)
        assert now.ended == (step == 4)
    assert validation.scores == [0.1, 0.2, 0.6, 0.5, 0.6] and validation.losses == [4.0, 3.0, 2.0, 1.0, 0.5]
    assert "step 4: the normalised score of validation answers was highest (60.0%) 2 times ago" in log.lines[-1]


@pytest.fixture
def config(one_layer, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text(
        f"image,question,answer\n{PHOTOS / 'chelsea.jpg'},What is the cat called?,Chelsea\n"
        f"{PHOTOS / 'coffee.jpg'},What is it?,A cup\n"
    )
    config = default_config()
    config.model.update(path=str(one_layer), max_visual_tokens=16)
    config.data.path = config.validation.path = str(table)
    config.batch.update(rows=8, sequence_length=128)
    config.train.update(steps=24, remat="none")
    config.optimizer.update(learning_rate=3e-3, warmup_fraction=0.0)
    config.validation.update(every=8, metric="normalised", max_new_tokens=8)
    config.checkpoint.update(every=8, keep=1)
    return config


def test_a_run_keeps_the_checkpoint_that_answers_best_and_writes_its_answers_down(config, tmp_path, capsys):
    result = run(config, str(tmp_path / "run"))
    told = "".join(capsys.readouterr()).splitlines()
    measured = lines(tmp_path / "run" / "validation.jsonl")
    assert [one["step"] for one in measured] == [8, 16, 24] and {one["metric"] for one in measured} == {"normalised"}
    for one in measured:
        answers = lines(tmp_path / "run" / "validation" / f"{one['step']:06d}.jsonl")
        assert [a["answers"] for a in answers] == [["Chelsea"], ["A cup"]]
        assert one["score"] == sum(a["score"] for a in answers) / 2
    scores = {one["step"]: one["score"] for one in measured}
    assert max(scores.values()) > 0, "nothing was learned, so that nothing is shown"
    step, shortfall = result.best
    assert scores[step] == max(scores.values()) == 1 - shortfall
    (said,) = [line for line in told if f"step 8: validation loss {measured[0]['loss']:.4f}" in line]
    assert said.endswith(f"normalised score of answers {scores[8]:.1%}")

    # A run that goes on knows what was measured before it.
    config.train.steps, config.validation.patience = 32, 1
    config.optimizer.learning_rate = 1e-12
    further = run(config, str(tmp_path / "run"))
    first = min(step for step in scores if scores[step] == max(scores.values()))
    assert further.done == (24 if first < 24 else 32) and scores[further.best[0]] == max(scores.values())


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"metric": "normalized"}, "normalized"),
        ({"metric": "bem"}, "validation.metric=bem: needs more than texts"),
        ({"metric": "final_answer:judge"}, "validation.metric=final_answer:judge: needs more than texts"),
        ({"metric": "vqa_evalai"}, "config.validation.path: question .*there is one alone"),
        ({"metric": "exact", "path": ""}, "validation.metric is 'exact'; wanted empty without validation.path"),
        ({"questions": -1}, "validation.questions is -1"),
        ({"max_new_tokens": 0}, "validation.max_new_tokens is 0"),
    ],
)
def test_what_cannot_be_is_refused_before_a_step(config, tmp_path, changes, said):
    config.validation.update(changes)
    with pytest.raises(InputError, match=said):
        run(config, str(tmp_path / "run"), console=Lines())
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_some_of_many_examples_are_asked(config, tmp_path):
    config.validation.update(path=str(PHOTOS / "photos.json"), questions=2, every=1)
    config.train.steps = 1
    run(config, str(tmp_path / "run"), console=Lines())
    assert len(lines(tmp_path / "run" / "validation" / "000001.jsonl")) == 2

"""Conversations that are answered side by side, each by its own settings."""

import numpy as np
import pytest

import vlm_jax
from tests.tiny_models import PHOTOS, user
from vlm_jax.inference.answering import Prompt
from vlm_jax.inference.sampling import Sampling

QUESTIONS = [[user("What is it?", PHOTOS / "chelsea.jpg")], [user("Hello")], [user("word " * 30)]]
SETTINGS = [
    (12, Sampling()),
    (5, Sampling(temperature=1.0, seed=3)),
    (9, Sampling(temperature=0.8, top_p=0.9, repetition_penalty=1.3, seed=4)),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.tiny_models import ONE_LAYER, save_tiny

    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, **ONE_LAYER)
    return vlm_jax.load(folder)


def prompts(model):
    return [
        Prompt(model.prompt(question, limit), limit, sampling)
        for question, (limit, sampling) in zip(QUESTIONS, SETTINGS, strict=True)
    ]


def alone(model, row):
    limit, sampling = SETTINGS[row]
    more = {"top_p": sampling.top_p, "repetition_penalty": sampling.repetition_penalty}
    return model.generate_tokens([QUESTIONS[row]], limit, sampling.temperature, sampling.seed, **more)[0]


@pytest.mark.parametrize("step", [1, 4, 50])
def test_each_row_is_answered_as_alone_with_its_own_limit_and_sampling(model, step):
    with model.begin(prompts(model)) as answering:
        while answering.unfinished:
            before = answering.unfinished
            answering.advance(step)
            assert set(answering.unfinished) <= set(before)
    for row in range(3):
        np.testing.assert_array_equal(answering.tokens(row), alone(model, row))
        assert answering.stopped(row) or len(answering.tokens(row)) == SETTINGS[row][0]


def test_a_row_that_is_finished_stays_as_it_is_while_the_others_go_on(model):
    with model.begin(prompts(model)) as answering:
        answering.advance(2)
        answering.finish(0)
        while answering.unfinished:
            answering.advance(3)
    np.testing.assert_array_equal(answering.tokens(0), alone(model, 0)[:3])
    np.testing.assert_array_equal(answering.tokens(2), alone(model, 2))
    assert not answering.stopped(0)


def test_kept_conversations_are_let_go_of_until_they_fit(model):
    model.forget()
    for question in QUESTIONS:
        model.generate(question, max_new_tokens=4)
    entries = [prefix.entries for prefix in model._reader.kept.values()]
    assert len(entries) == 3
    model.forget(entries[1] + entries[2])
    assert [prefix.entries for prefix in model._reader.kept.values()] == entries[1:]
    model.forget()
    assert not model._reader.kept

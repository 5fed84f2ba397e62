"""Which tokens may be drawn, against transformers' logits processors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from vlm_jax.errors import InputError
from vlm_jax.inference.sampling import Sampling, choose, cut, in_rows

VOCAB, ROWS = 97, 5
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (ROWS, VOCAB)).astype(np.float32)
ON_DEVICE = jnp.asarray(LOGITS)
SAID = RNG.integers(0, VOCAB, (ROWS, 20))


def seen() -> jax.Array:
    return jnp.zeros((ROWS, VOCAB), bool).at[np.arange(ROWS)[:, None], SAID].set(True)


@pytest.mark.parametrize("top_k, top_p", [(0, 1.0), (1, 1.0), (7, 1.0), (0, 0.3), (0, 0.9), (12, 0.7), (500, 1e-6)])
def test_what_may_be_drawn_is_what_transformers_leaves(top_k, top_p):
    expected = torch.from_numpy(LOGITS)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    found = jax.jit(cut)(ON_DEVICE, jnp.full(ROWS, top_k, jnp.int32), jnp.full(ROWS, top_p, jnp.float32))
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected.numpy()))
    kept = np.isfinite(found)
    np.testing.assert_array_equal(np.asarray(found)[kept], LOGITS[kept])


def test_draws_follow_the_distribution_of_transformers_processors():
    options = Sampling(temperature=0.7, top_k=9, top_p=0.9, repetition_penalty=1.3)
    scores = RepetitionPenaltyLogitsProcessor(1.3)(torch.from_numpy(SAID), torch.from_numpy(LOGITS))
    for warper in (TemperatureLogitsWarper(0.7), TopKLogitsWarper(9), TopPLogitsWarper(0.9)):
        scores = warper(None, scores)
    wanted = torch.softmax(scores, -1).numpy()
    keys = jax.random.split(jax.random.key(0), ROWS)
    numbers, mode = in_rows([options] * ROWS)
    draw = jax.jit(lambda count: choose(ON_DEVICE, numbers, keys, count, seen(), mode))
    count = 4000
    drawn = np.asarray(jax.lax.map(draw, jnp.arange(count)))
    for row in range(ROWS):
        found = np.bincount(drawn[:, row], minlength=VOCAB) / count
        assert np.all(found[wanted[row] == 0] == 0)
        # Six standard errors of each share.
        assert np.all(np.abs(found - wanted[row]) <= 6 * np.sqrt(wanted[row] * (1 - wanted[row]) / count) + 1e-6)


def test_the_likeliest_token_is_taken_without_a_temperature_and_the_penalty_counts_there_too():
    options = Sampling(repetition_penalty=5.0)
    expected = RepetitionPenaltyLogitsProcessor(5.0)(torch.from_numpy(SAID), torch.from_numpy(LOGITS)).argmax(-1)
    found = choose(
        ON_DEVICE, in_rows([options] * ROWS)[0], jax.random.split(jax.random.key(0), ROWS), 0, seen(), options.mode
    )
    assert found.tolist() == expected.tolist() != LOGITS.argmax(-1).tolist()


def test_a_row_is_chosen_as_alone_whatever_settings_the_others_have():
    settings = [
        Sampling(),
        Sampling(temperature=0.7),
        Sampling(temperature=1.3, top_k=5),
        Sampling(temperature=0.9, top_p=0.4),
        Sampling(repetition_penalty=5.0),
    ]
    keys = jax.random.split(jax.random.key(0), ROWS)
    numbers, mode = in_rows(settings)
    for count in range(20):
        together = choose(ON_DEVICE, numbers, keys, count, seen(), mode)
        for row, one in enumerate(settings):
            own, own_mode = in_rows([one])
            said = seen()[row : row + 1] if own_mode.penalised else None
            alone = choose(ON_DEVICE[row : row + 1], own, keys[row : row + 1], count, said, own_mode)
            assert together[row] == alone[0]


def test_settings_that_cannot_be_are_told_together():
    with pytest.raises(InputError) as error:
        Sampling(temperature=-1.0, top_k=-2, top_p=0.0, repetition_penalty=float("nan"))
    assert [line.split(" ")[0] for line in error.value.lines] == [
        "temperature",
        "top_k",
        "top_p",
        "repetition_penalty",
    ]

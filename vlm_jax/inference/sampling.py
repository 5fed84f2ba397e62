"""Which token comes next: the likeliest, or a draw under temperature, top-k and top-p, with or without a penalty.

In the order and with the rules of transformers' logits processors, so that settings mean what people know.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from vlm_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
      temperature: 0 takes the likeliest token; higher is more varied.
      top_k: only the k likeliest tokens are drawn from; 0: all.
      top_p: only the likeliest tokens that together have this probability; 1: all.
      repetition_penalty: logits of tokens that stand in the conversation are divided by it (multiplied, where they are
        below 0; Keskar et al. 2019); 1: none.
      seed: of the draws.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self):
        errors = [
            f"{name} is {value!r}; wanted {expected}"
            for name, value, valid, expected in (
                ("temperature", self.temperature, self.temperature >= 0, "0 or more"),
                ("top_k", self.top_k, self.top_k >= 0, "0 (all tokens) or more"),
                ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
                ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"),
            )
            if not (math.isfinite(value) and valid)
        ]
        if errors:
            raise InputError(errors)

    @property
    def mode(self) -> "Mode":
        return Mode(
            drawn=self.temperature > 0,
            cut=self.temperature > 0 and (self.top_k > 0 or self.top_p < 1),
            penalised=self.repetition_penalty != 1,
        )


@dataclasses.dataclass(frozen=True)
class Mode:
    """What of `Sampling` a program computes at all; each is compiled by itself."""

    drawn: bool
    cut: bool
    penalised: bool


def in_rows(settings: Sequence[Sampling]) -> tuple[dict[str, np.ndarray], Mode]:
    """The settings of each row [b], which a compiled program is given, so that other values do not compile anew; and
    the mode that computes what any of them needs. A row that does not need it is the same with it."""
    numbers = {
        "temperature": np.array([row.temperature for row in settings], np.float32),
        "top_k": np.array([row.top_k for row in settings], np.int32),
        "top_p": np.array([row.top_p for row in settings], np.float32),
        "penalty": np.array([row.repetition_penalty for row in settings], np.float32),
    }
    modes = [row.mode for row in settings]
    return numbers, Mode(*(any(getattr(mode, field.name) for mode in modes) for field in dataclasses.fields(Mode)))


NO_TOKEN = -1
"""Stands for a token where a model computes NaN: there is none to choose."""


def choose(
    logits: Float[Array, "b v"],
    numbers: dict[str, Array | np.ndarray],
    keys: Array,
    count: int | Int[Array, ""],
    seen: Bool[Array, "b v"] | None,
    mode: Mode,
) -> Int[Array, " b"]:
    """The next token of each row; a row draws from its own stream of keys. `NO_TOKEN` where logits are no numbers.

    Args:
      numbers: `in_rows`.
      count: how many tokens the answers have: which draw of the stream this is.
      seen: the tokens of each conversation so far; None where nothing is penalised.
    """
    no_nan = ~jnp.isnan(jnp.max(logits, axis=-1))
    if mode.penalised:
        penalty = numbers["penalty"][:, None]
        logits = jnp.where(seen, jnp.where(logits < 0, logits * penalty, logits / penalty), logits)
    likeliest = jnp.where(no_nan, jnp.argmax(logits, axis=-1).astype(jnp.int32), NO_TOKEN)
    if not mode.drawn:
        return likeliest
    temperature = numbers["temperature"]
    logits = logits / jnp.where(temperature > 0, temperature, 1)[:, None]
    if mode.cut:
        logits = cut(logits, numbers["top_k"], numbers["top_p"])
    draw = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, count), row))
    return jnp.where(no_nan & (temperature > 0), draw(keys, logits).astype(jnp.int32), likeliest)


def log_probability(logits: Float[Array, "b v"], token: Int[Array, " b"]) -> Float[Array, " b"]:
    """Natural logarithm of what the model gives a token of each row, before temperature, cuts and penalties."""
    of_token = jnp.take_along_axis(logits, jnp.maximum(token, 0)[:, None], axis=-1)[:, 0]
    return of_token - jax.nn.logsumexp(logits, axis=-1)


def cut(
    logits: Float[Array, "b v"], top_k: Int[Array | np.ndarray, " b"], top_p: Float[Array | np.ndarray, " b"]
) -> Float[Array, "b v"]:
    """Minus infinity for all but the `top_k` likeliest (0: all), and of these the likeliest that reach `top_p`."""
    vocab = logits.shape[-1]
    ranked = -jnp.sort(-logits, axis=-1)
    place = jnp.where(top_k == 0, vocab, jnp.minimum(top_k, vocab)) - 1
    least = jnp.take_along_axis(ranked, place[:, None], axis=-1)
    ranked = jnp.where(ranked < least, -jnp.inf, ranked)
    shares = jax.nn.softmax(ranked, axis=-1)
    # A token stays while those before it do not reach the share; the first always does.
    stays = (jnp.cumsum(shares, axis=-1) - shares < top_p[:, None]) | (top_p >= 1)[:, None]
    least = jnp.maximum(least, jnp.min(jnp.where(stays, ranked, jnp.inf), axis=-1, keepdims=True))
    return jnp.where(logits < least, -jnp.inf, logits)

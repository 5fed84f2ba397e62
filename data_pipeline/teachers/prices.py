"""What calls cost: tokens by the prices of a config, in US dollars.

Prices change and models come and go, so both stand in configs, with the day on which they were looked up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_pipeline.teachers.request import TOKENS_AN_IMAGE, Request, Usage
from vlm_jax.errors import InputError

_KINDS = ("input", "cached", "output", "image", "batch")


@dataclass(frozen=True)
class Price:
    """Dollars for a million tokens. Thoughts are paid as output; `batch` is the share of it that a batch job costs."""

    input: float = 0.0
    cached: float | None = None
    output: float = 0.0
    image: float = 0.0
    batch: float = 1.0

    def of(self, usage: Usage, *, batch: bool = False) -> float:
        cached = self.input if self.cached is None else self.cached
        whole = (
            (usage.input - usage.cached) * self.input
            + usage.cached * cached
            + (usage.output + usage.thoughts) * self.output
            + usage.image * self.image
        ) / 1e6
        return whole * self.batch if batch else whole


FREE = Price()


def prices_of(settings: Mapping[str, Any]) -> dict[str, Price]:
    """{model: price} of a config's `prices`: `date`, and for each model dollars for a million tokens.

    Raises:
      InputError: with every error.
    """
    errors, found = [], {}
    date = settings.get("date", "")
    if settings and not (isinstance(date, str) and date):
        errors.append("config.prices.date is not set; write the day on which the prices were looked up")
    for model, price in settings.items():
        if model == "date":
            continue
        if not isinstance(price, Mapping):
            errors.append(f"config.prices[{model!r}] is {price!r}; wanted a mapping of {', '.join(_KINDS)}")
            continue
        wrong = [key for key in price if key not in _KINDS]
        bad = [key for key in _KINDS if key in price and not _is_price(price[key])]
        name = f"config.prices[{model!r}]"
        errors += [f"{name}: no price {key!r}; known are {', '.join(_KINDS)}" for key in wrong]
        errors += [f"{name}.{key} is {price[key]!r}; wanted dollars for a million tokens" for key in bad]
        if not wrong and not bad:
            found[model] = Price(**price)
    if errors:
        raise InputError(errors)
    return found


def _is_price(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


def reached(spent: float, most: float, limit: float) -> InputError:
    """That a call which may cost so much would pass the limit."""
    return InputError(
        f"${spent:.2f} are spent, and another call may come to ${most:.4f}: --max_cost={limit:g} is reached; the same "
        "command with more goes on from there"
    )


def estimated(request: Request, most_output: int) -> Usage:
    """The most that a request is expected to take: its text by its letters, its images by their number.

    Args:
      most_output: tokens that the answer may have at most.
    """
    # Four letters a token of English, about one a token of other scripts.
    plain = sum(letter.isascii() for letter in request.prompt)
    tokens = plain // 4 + (len(request.prompt) - plain) + TOKENS_AN_IMAGE * len(request.images)
    if request.kind == "image":
        return Usage(input=tokens, image=TOKENS_AN_IMAGE)
    return Usage(input=tokens, output=most_output if request.kind == "text" else 0)

"""Which budget of visual tokens an example is shown with over training."""

import numpy as np
import pytest

from vlm_jax.errors import InputError
from vlm_jax.processing.token_budget import TokenBudget
from vlm_jax.processing.token_schedule import TokenSchedule, parse, schedule_of
from vlm_jax.training.config import check_config, default_config

BUDGETS = (TokenBudget(0.25, "divprune"), TokenBudget(0.5, "divprune"), TokenBudget(1.0, "divprune"))


def test_in_turn_each_budget_begins_where_it_is_said_to():
    schedule = TokenSchedule(BUDGETS, (0.5, 0.25, 0.25), "in_turn")
    assert schedule.at(0, 8, (3, 6)).tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert schedule.at(5, 3, (3, 6)).tolist() == [1, 2, 2]


def test_what_is_drawn_has_the_declared_shares_and_is_the_same_from_wherever_it_is_asked():
    schedule = TokenSchedule(BUDGETS, (0.7, 0.2, 0.1), "drawn", seed=3)
    drawn = schedule.at(0, 100_000)
    shares = np.bincount(drawn) / len(drawn)
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=0.006)  # four standard deviations
    np.testing.assert_array_equal(schedule.at(777, 5000), drawn[777:5777])
    other = TokenSchedule(BUDGETS, (0.7, 0.2, 0.1), "drawn", seed=4).at(0, 100_000)
    # Independent of another seed's: alike as often as chance has it.
    assert abs((other == drawn).mean() - (0.49 + 0.04 + 0.01)) < 0.007
    # And of the place: no stripes.
    assert abs((drawn[1:] == drawn[:-1]).mean() - 0.54) < 0.007


def test_settings_become_a_schedule():
    config = default_config()
    assert schedule_of(config.model, 0) is None
    config.model.token_schedule = "0.25: 0.9, 256: 0.1"
    config.model.token_reduction = "mmr"
    schedule = schedule_of(config.model, 5)
    assert schedule.budgets == (TokenBudget(0.25, "mmr", 5), TokenBudget(256, "mmr", 5))
    assert schedule.shares == (0.9, 0.1) and schedule.order == "in_turn"
    assert schedule.describe() == "90% of the examples with 25%, then 10% of the examples with 256 an image"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("0.25", ["'0.25' is no visual tokens and share"]),
        ("0.25: 0.9, 1.0: 0.2", ["its shares add up to 1.1"]),
        ("0: 0.5, 1.5: 0.5", ["'0: 0.5': visual_tokens is 0.0", "'1.5: 0.5': visual_tokens is 1.5"]),
        ("0.25: 0, 1: 1", ["'0.25: 0' has the share 0"]),
        ("0.25: nan, 1: 1", ["has the share nan"]),
        ("0.25: 0.5, 0.25: 0.5", ["the same visual tokens twice"]),
        (" , ", ["it is empty"]),
    ],
)
def test_what_is_no_schedule_is_refused_with_all_that_is_wrong(text, lines):
    config = default_config()
    config.model.path, config.data.path = "a", "b"
    config.model.token_schedule = text
    with pytest.raises(InputError) as caught:
        check_config(config)
    assert all("config.model.token_schedule: " in line for line in caught.value.lines)
    for line in lines:
        assert any(line in one for one in caught.value.lines), caught.value.lines
    with pytest.raises(InputError):
        parse(text)


def test_a_method_needs_no_share_of_its_own_beside_a_schedule():
    config = default_config()
    config.model.path, config.data.path = "a", "b"
    config.model.token_reduction = "divprune"
    with pytest.raises(InputError, match="resize where model.visual_tokens is 1.0"):
        check_config(config)
    config.model.token_schedule = "0.25: 0.9, 1.0: 0.1"
    check_config(config)
    config.model.token_schedule = "1.0: 1.0"
    with pytest.raises(InputError, match="resize where every budget of model.token_schedule is 1.0"):
        check_config(config)
    config.model.update(token_schedule="", token_reduction="resize", token_schedule_order="drawn")
    with pytest.raises(InputError, match="in_turn where there is no model.token_schedule"):
        check_config(config)
    config.model.token_schedule = "0.25: 0.9, 1.0: 0.1"
    config.model.token_schedule_order = "sideways"
    with pytest.raises(InputError, match="in_turn or drawn"):
        check_config(config)

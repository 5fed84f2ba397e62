"""Runs that are asked for more or less than they began with: what was given out stays, nothing is lost or doubled."""

import json
from collections import Counter

import pytest

from data_pipeline import run_length
from data_pipeline.packing import Course
from tests.data_pipeline.test_packing import plan_of
from vlm_jax.processing.example import Size
from vlm_jax.processing.token_budget import TokenBudget
from vlm_jax.processing.token_schedule import TokenSchedule

COUNT = 90
LENGTHS = [Size(20 + n % 9, 64, 2) for n in range(COUNT)]


def plan(course, window):
    return plan_of(LENGTHS, window=window, examples=course.examples, steps=course.steps, ends=course.ends)


def asked(steps=0, epochs=0):
    return run_length.course_of(COUNT, steps=steps, epochs=epochs)


def taken(plan, first, end):
    return [plan[number] for number in range(first, end)]


def counted(batches):
    return Counter(place[1] for batch in batches for row in batch.rows for place in row)


def gone_on(before, number, after, window, *, position=None, otherwise=None):
    """(the plan of a run that was at batch `number` of `before` and is asked for `after`, what it had given out)."""
    plan_before = plan(before, window)
    if position is not None:
        plan_before.restore(position)
        first = position["batches"]
    else:
        first = 0
    given = taken(plan_before, first, number)
    position = json.loads(json.dumps(plan_before.state(number)))
    stored = run_length.course_in(position, otherwise or before)
    course = run_length.changed_course(lambda course: plan(course, window), stored, after, position, number)
    again = plan(course, window)
    again.restore(position)
    return again, given


@pytest.mark.parametrize("window", [16, 64, 1024])
def test_a_finished_run_that_is_given_more_epochs_sees_every_example_once_an_epoch(window):
    before = asked(epochs=2)
    total = len(plan(before, window))
    again, given = gone_on(before, total, asked(epochs=3), window)
    assert len(again) > total
    more = taken(again, total, len(again))
    assert counted(given) == dict.fromkeys(range(COUNT), 2) and counted(more) == dict.fromkeys(range(COUNT), 1)
    # And once more, from a position in the part that was added.
    position = json.loads(json.dumps(again.state(total + 1)))
    last, _ = gone_on(again.course, total + 1, asked(epochs=5), window, position=position)
    rest = counted([*more[:1], *taken(last, total + 1, len(last))])
    assert rest == dict.fromkeys(range(COUNT), 3)


@pytest.mark.parametrize("window", [16, 64, 1024])
@pytest.mark.parametrize("number", [0, 1, 4, 7])
def test_a_run_in_its_middle_that_is_given_more_epochs_sees_every_example_as_often(window, number):
    again, given = gone_on(asked(epochs=2), number, asked(epochs=5), window)
    assert counted([*given, *taken(again, number, len(again))]) == dict.fromkeys(range(COUNT), 5)


@pytest.mark.parametrize("window", [16, 1024])
@pytest.mark.parametrize("number", [0, 3, 9])
def test_more_steps_are_those_that_a_longer_run_would_have_taken(window, number):
    again, given = gone_on(asked(steps=9), number, asked(steps=30), window)
    assert len(again) == 30
    assert [*given, *taken(again, number, 30)] == taken(plan(asked(steps=30), window), 0, 30)


def test_epochs_become_steps_and_steps_epochs():
    total = len(plan(asked(epochs=1), 32))
    again, given = gone_on(asked(epochs=1), total, asked(steps=total + 8), 32)
    assert len(again) == total + 8 and len(taken(again, total, total + 8)) == 8
    assert counted(given) == dict.fromkeys(range(COUNT), 1)
    again, given = gone_on(asked(steps=5), 5, asked(epochs=4), 32)
    assert counted([*given, *taken(again, 5, len(again))]) == dict.fromkeys(range(COUNT), 4)


@pytest.mark.parametrize("window", [16, 1024])
def test_fewer_epochs_end_the_run_earlier_and_what_was_given_out_stays(window):
    before, fewer = asked(epochs=8), asked(epochs=5)
    again, given = gone_on(before, 4, fewer, window)
    rest = taken(again, 4, len(again))
    assert len(plan(fewer, window)) == len(again) < len(plan(before, window))
    seen = counted([*given, *rest])
    if window == 16:  # what was given out knows nothing of either end
        assert seen == dict.fromkeys(range(COUNT), 5)
    else:  # one window held all epochs: its batches go on as they were planned
        assert [*given, *rest] == taken(plan(before, window), 0, len(again))


@pytest.mark.parametrize("window", [16, 1024])
def test_a_run_of_changed_length_that_is_stopped_again_goes_on_exactly(window):
    for after, number in ((asked(epochs=5), 4), (asked(epochs=3), 4), (asked(steps=40), 7)):
        whole, _ = gone_on(asked(epochs=4), number, after, window)
        expected = taken(whole, number, len(whole))
        stopped, _ = gone_on(asked(epochs=4), number, after, window)
        taken(stopped, number, number + 3)
        position = json.loads(json.dumps(stopped.state(number + 3)))
        again = plan(run_length.course_in(position, after), window)
        again.restore(position)
        assert len(again) == len(whole)
        assert taken(again, number + 3, len(again)) == expected[3:]


def test_a_position_of_an_earlier_version_is_lengthened_too():
    before = asked(epochs=1)
    total = len(plan(before, 32))
    stored = plan(before, 32)
    given = taken(stored, 0, total)
    position = {key: value for key, value in stored.state(total).items() if key not in ("course", "start")}
    course = run_length.changed_course(
        lambda course: plan(course, 32), run_length.course_in(position, before), asked(epochs=2), position, total
    )
    assert course == Course(2 * COUNT, None, (COUNT,))
    again = plan(course, 32)
    again.restore(position)
    assert counted([*given, *taken(again, total, len(again))]) == dict.fromkeys(range(COUNT), 2)


@pytest.mark.parametrize("window", [64, 128])
def test_a_run_that_stopped_where_a_window_begins_is_lengthened_too(window):
    """Of what came before such a place nothing is planned again."""
    lengths = [Size(20 + n % 9, 64, 2) for n in range(600)]

    def long(course):
        return plan_of(lengths, window=window, examples=course.examples, steps=course.steps, ends=course.ends)

    before, after = (run_length.course_of(600, steps=0, epochs=epochs) for epochs in (1, 2))
    finished = long(before)
    boundaries = [number for number in range(1, finished.finish()) if finished.state(number)["batches"] == number]
    assert len(boundaries) > 1
    for number in boundaries:
        position = json.loads(json.dumps(finished.state(number)))
        again = long(run_length.changed_course(long, before, after, position, number))
        again.restore(position)
        rest = taken(again, number, len(again))
        walked = long(before)
        assert set(counted([*taken(walked, 0, number), *rest]).values()) == {2}


def test_each_budget_of_a_schedule_in_turn_has_a_step_at_least():
    schedule = TokenSchedule((TokenBudget(1.0), TokenBudget(0.25)), (0.05, 0.95))
    asked = []

    def examples_of(*asked_for):
        asked.append(asked_for)
        return 7.0

    course = run_length.course_of(1000, steps=10, epochs=0, schedule=schedule, examples_of=examples_of)
    assert asked == [(0, 1)] and course.turns == (7,) and course.next_end(0) == 7 and course.next_end(7) is None
    assert run_length.course_of(1000, steps=0, epochs=2, schedule=schedule).turns == (100,)
    drawn = TokenSchedule(schedule.budgets, schedule.shares, "drawn")
    assert run_length.course_of(1000, steps=10, epochs=0, schedule=drawn).turns == ()

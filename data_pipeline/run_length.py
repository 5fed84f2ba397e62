"""How far a run goes that is asked for more, or less, than it began with: what it saw stays as it was.

Batches are planned a window at a time, and the end of a run closes all rows. So what was given out may depend on where
the run was to end; that part is kept, and the new length decides the rest.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from data_pipeline.packing import Course, Plan
from vlm_jax.processing.token_schedule import IN_TURN, TokenSchedule


def course_of(
    examples: int,
    *,
    steps: int,
    epochs: int,
    schedule: TokenSchedule | None = None,
    examples_of: Callable[[int, float], float] = lambda budget, steps: 0.0,
) -> Course:
    """Of a fresh run of `steps`, or of so many epochs of `examples` where steps is 0.

    Args:
      schedule: of visual tokens, whose budgets may be taken in turn.
      examples_of: how many examples with a budget, by its number, so many steps show, about.
    """
    turns: list[float] = []
    if schedule is not None and schedule.order == IN_TURN:
        for number, share in enumerate(schedule.shares[:-1]):
            # Each that is asked for has a step.
            count = examples_of(number, float(max(1, round(share * steps)))) if steps else share * epochs * examples
            turns.append((turns[-1] if turns else 0) + count)
    whole = tuple(round(turn) for turn in turns)
    return Course(steps=steps, turns=whole) if steps else Course(examples=epochs * examples, turns=whole)


def course_in(position: Mapping[str, Any], otherwise: Course) -> Course:
    """What the plan of a saved position followed; earlier versions did not say, and followed the settings."""
    saved = position.get("course")
    if not saved:
        return otherwise
    return Course(saved["examples"], saved["steps"], tuple(saved["ends"]), tuple(saved.get("turns", ())))


def changed_course(
    plan: Callable[[Course], Plan], before: Course, requested: Course, position: Mapping[str, Any], count: int
) -> Course:
    """The course of a run that followed `before` for `count` batches and is now to be as long as `requested`.

    Args:
      plan: makes a plan of a course.
      position: where the run stands (`Plan.state`).
    """
    earlier = plan(before)
    earlier.restore(position)
    reach = earlier.reach(count)
    ended = before.examples is not None and before.examples <= reach
    if requested.examples is None or requested.examples > reach:
        # What was given out knows nothing of the new end.
        ends = (*before.ends, before.examples) if ended else before.ends
        turns = [
            old if old <= reach else max(new, reach) for old, new in zip(before.turns, requested.turns, strict=True)
        ]
        return dataclasses.replace(requested, ends=tuple(ends), turns=tuple(turns))
    # Rows were shared with examples beyond the new end: they stay, and the run ends after as many steps as it takes.
    earlier.restore(position)
    available = len(earlier) if before.examples is not None else None
    steps = len(plan(requested))
    return dataclasses.replace(before, steps=steps if available is None else min(steps, available))

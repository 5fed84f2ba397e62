"""Whether a chain of thought has its form: steps, and a last line that gives the short answer."""

from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.values import quoted
from vlm_jax.evaluation.metrics.any_language import normalise
from vlm_jax.evaluation.metrics.chain_of_thought import MARKS, answers_in, split


def chain_of_thought(pair: Pair, *, least: int, longest: int) -> str:
    """Why a chain of thought is none: no steps, no answer label in its last line, another answer than the short one.

    Pairs without reasoning pass. Answers are compared by `normalise`.

    Args:
      least: characters of the steps, at least; `longest` at most.
    """
    if not pair.reasoning:
        return ""
    steps, answer = split(pair.reasoning)
    if not answer:
        return f"no final answer: the last line has none behind {' or '.join(MARKS[:2])}"
    if len(steps) < least:
        return f"no steps: {quoted(steps)}"
    if len(steps) > longest:
        return f"long steps: {len(steps):,} characters"
    if normalise(answer) != normalise(pair.answer):
        return f"another answer: ends with {quoted(answer)}, the short answer is {quoted(pair.answer)}"
    if earlier := [one for one in answers_in(steps) if normalise(one) != normalise(answer)]:
        return f"two answers: {quoted(earlier[0])} and {quoted(answer)}"
    return ""

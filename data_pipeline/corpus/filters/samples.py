"""What a model answered to a question, several times, against the answer of the pair.

Three filters ask: does the student answer without the image, does it from the article alone, does the teacher answer
the same when asked again. Asking is the pipeline's.
"""

import re
from collections.abc import Sequence

from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.values import quoted
from vlm_jax.evaluation.metrics import score
from vlm_jax.evaluation.metrics.any_language import normalise

POLAR = frozenset(
    ["yes", "no", "true", "false", "ใช่", "ไม่ใช่", "ไม่", "มี", "ไม่มี", "ได้", "ไม่ได้", "จริง", "ไม่จริง", "เป็น", "ไม่เป็น"]
)
"""Answers that stand in many a sentence that does not give them: ใช่ in ไม่ใช่, "no" in "no idea"."""
_POLITE = re.compile("(?:นะ)?(?:ครับ|ค่ะ|คะ|จ้ะ|จ้า)$")
_NOT_AN_ANSWER = re.compile(r"no (?:idea|clue|image|picture|photo|information|context|way)\b")


def agrees(sample: str, answer: str, metric: str) -> bool:
    """Whether a sample gives the answer.

    By a metric of `vlm_jax.evaluation.metrics`, of which "contains" also takes a sentence with the answer in it; yes
    and no, in English and Thai, must be how the sample begins.
    """
    polar = normalise(answer)
    if polar in POLAR:
        text = normalise(sample)
        first = _POLITE.sub("", re.split(r"[\s,.;:!–—-]", text, maxsplit=1)[0])
        return first == polar and _NOT_AN_ANSWER.match(text) is None
    return score(metric, sample, answer) >= 1


def share_that_agrees(samples: Sequence[str], answer: str, metric: str) -> float:
    return sum(agrees(sample, answer, metric) for sample in samples) / len(samples)


def answerable_without_image(pair: Pair, samples: Sequence[str], *, metric: str, share: float) -> str:
    """Why a question teaches nothing about its image: the student answers it from its words.

    Args:
      samples: what the student answered, given the question only; at least one.
      metric: of `vlm_jax.evaluation.metrics.METRICS`, one that looks at texts alone.
      share: of the samples that must be right for the pair to be dropped.
    """
    return _answered("answerable without the image", samples, pair, metric, share)


def answerable_from_article(pair: Pair, samples: Sequence[str], *, metric: str, share: float) -> str:
    """Likewise, with the samples that the student gave to the article and the question, without the image."""
    return _answered("answerable from the article alone", samples, pair, metric, share)


def consistent(pair: Pair, samples: Sequence[str], *, metric: str, share: float) -> str:
    """Why an answer is not to be trusted: less than a share of the teacher's further samples agree with it."""
    agreed = share_that_agrees(samples, pair.answer, metric)
    if agreed >= share:
        return ""
    return f"inconsistent: {agreed:.0%} of {len(samples)} samples agree with {quoted(pair.answer)}"


def _answered(reason: str, samples: Sequence[str], pair: Pair, metric: str, share: float) -> str:
    right = share_that_agrees(samples, pair.answer, metric)
    return f"{reason}: {right:.0%} of {len(samples)} samples are right" if right >= share else ""

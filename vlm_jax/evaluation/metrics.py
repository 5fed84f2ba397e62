"""Whether an answer is right, and how sure a mean of such scores is.

Scores are in [0, 1], the best over the accepted answers. Nothing here needs a model or an accelerator.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from vlm_jax.errors import InputError

_SPACE = re.compile(r"\s+")


def normalise(text: str) -> str:
    """One form for spellings that mean the same in any language.

    NFC, case folded, runs of white space as one space, marks and punctuation around the answer dropped. Combining
    marks stay, wherever they stand: in Thai and Indic scripts they are vowels and tones, not ornaments.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    text = _SPACE.sub(" ", unicodedata.normalize("NFC", folded)).strip()  # folding may undo the first NFC
    start, end = 0, len(text)
    while start < end and _surrounds(text[start]):
        start += 1
    while end > start and _surrounds(text[end - 1]):
        end -= 1
    return text[start:end]


def _surrounds(character: str) -> bool:
    return unicodedata.category(character)[0] in "PZ"


def exact(prediction: str, answer: str) -> float:
    """Equal, character for character, in NFC and without white space around."""
    plain = lambda text: unicodedata.normalize("NFC", text).strip()  # noqa: E731
    return float(plain(prediction) == plain(answer))


def normalised(prediction: str, answer: str) -> float:
    """Equal in the form of `normalise`."""
    return float(normalise(prediction) == normalise(answer))


def contains(prediction: str, answer: str) -> float:
    """The answer stands in the prediction as whole words, both in the form of `normalise`.

    An answer that normalises to nothing is in nothing. Scripts that write words without spaces match anywhere.
    """
    answer, prediction = normalise(answer), normalise(prediction)
    if not answer:
        return 0.0
    bounded = [re.escape(answer)]
    if answer[0].isascii() and answer[0].isalnum():
        bounded.insert(0, r"(?<![A-Za-z0-9])")
    if answer[-1].isascii() and answer[-1].isalnum():
        bounded.append(r"(?![A-Za-z0-9])")
    return float(re.search("".join(bounded), prediction) is not None)


METRICS: dict[str, Callable[[str, str], float]] = {"exact": exact, "normalised": normalised, "contains": contains}


def score(metric: str, prediction: str, answers: str | Sequence[str]) -> float:
    """The score of a prediction: the best over the accepted answers.

    Raises:
      InputError: an unknown metric, or no answer to compare with.
    """
    if metric not in METRICS:
        raise InputError(f"metric {metric!r}: known are {', '.join(METRICS)}")
    answers = [answers] if isinstance(answers, str) else list(answers)
    if not answers:
        raise InputError("no accepted answer to score against")
    return max(METRICS[metric](prediction, answer) for answer in answers)


def majority(answers: Sequence[Sequence[str]], kinds: Sequence[str]) -> float:
    """The share of questions that are right by always giving the commonest answer of their kind, without looking.

    Args:
      answers: the accepted answers of each question; the first stands for it.
      kinds: the kind of each question: what can be told from its text alone.
    """
    by_kind: dict[str, Counter] = {}
    for accepted, kind in zip(answers, kinds, strict=True):
        by_kind.setdefault(kind, Counter())[normalise(accepted[0])] += 1
    return sum(max(counts.values()) for counts in by_kind.values()) / max(1, len(answers))


def interval(
    scores: Sequence[float], *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), items resampled with replacement.

    Where all scores are equal resampling says nothing; the interval is then the rule of three (Hanley & Lippman-Hand
    1983): at 95 %, up to 3 of n unseen items may differ.
    """
    values = np.asarray(scores, np.float64)
    if not len(values):
        return 0.0, 1.0
    if np.all(values == values[0]):
        width = min(1.0, -np.log(1 - level) / len(values))
        return max(0.0, values[0] - width), min(1.0, values[0] + width)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            # in slices: resamples × items may be hundreds of millions
            values[rng.integers(0, len(values), (min(100, resamples - start), len(values)))].mean(axis=1)
            for start in range(0, resamples, 100)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

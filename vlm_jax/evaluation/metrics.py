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
# Scripts that write words without spaces between them: Thai, Lao, Burmese, Khmer, kana, Han.
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
_LETTER = rf"[^\W{_SPACELESS}]"
_JOINERS = "\u200c\u200d"  # change a word, in Persian and Indic scripts; other invisible characters do not
# Thai as it is typed, and as it should be: e + e for ae; nikhahit and aa, tone before or after, for am.
_THAI = (
    (re.compile("\u0e40\u0e40"), "\u0e41"),
    (re.compile("\u0e4d([\u0e48-\u0e4b]?)\u0e32"), "\\1\u0e33"),
    (re.compile("([\u0e48-\u0e4b])\u0e4d\u0e32"), "\\1\u0e33"),
)


def normalise(text: str) -> str:
    """One form for spellings that mean the same in any language.

    NFC, case folded, runs of white space as one space, invisible characters and punctuation around the answer dropped,
    Thai vowels that can be typed in two ways in one of them. Combining marks stay, wherever they stand: in Thai and
    Indic scripts they are vowels and tones, not ornaments. A sign or a point before a digit, and % behind one, stay.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    text = unicodedata.normalize("NFC", folded)  # folding may undo the first NFC
    text = "".join(c for c in text if c in _JOINERS or unicodedata.category(c) != "Cf")
    for typed, meant in _THAI:
        text = typed.sub(meant, text)
    text = _SPACE.sub(" ", text).strip()
    start, end = 0, len(text)
    while start < end and _surrounds(text[start]) and not (text[start] in "-." and text[start + 1 : end][:1].isdigit()):
        start += 1
    while (
        end > start
        and _surrounds(text[end - 1])
        and not (text[end - 1] == "%" and text[start : end - 1][-1:].isdigit())
    ):
        end -= 1
    return text[start:end]


def _surrounds(character: str) -> bool:
    return unicodedata.category(character)[0] in "PZ"


def exact(prediction: str, answer: str) -> float:
    """Equal, character for character, in NFC and without white space around."""
    plain = lambda text: unicodedata.normalize("NFC", text).strip()  # noqa: E731
    return float(plain(prediction) == plain(answer))


def normalised(prediction: str, answer: str) -> float:
    """Equal in the form of `normalise`; punctuation alone, which normalises to nothing, must be the same."""
    return float(normalise(prediction) == normalise(answer)) if normalise(answer) else exact(prediction, answer)


def contains(prediction: str, answer: str) -> float:
    """The answer stands in the prediction as whole words, both in the form of `normalise`.

    An answer that normalises to nothing is in nothing. Scripts that write words without spaces match anywhere.
    """
    answer, prediction = normalise(answer), normalise(prediction)
    if not answer:
        return 0.0
    bounded = [re.escape(answer)]
    if re.match(_LETTER, answer[0]):
        bounded.insert(0, f"(?<!{_LETTER})")
    if re.match(_LETTER, answer[-1]):
        bounded.append(f"(?!{_LETTER})")
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

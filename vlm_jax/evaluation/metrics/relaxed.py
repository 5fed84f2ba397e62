"""Relaxed accuracy, of ChartQA (Masry et al. 2022, section 5.1): a number may be off by five per cent.

As in pix2struct, Qwen-VL and lmms-eval; a number is what Python's `float` reads, so "1,000" is none.
"""

_TOLERANCE = 0.05


def relaxed_accuracy(prediction: str, answer: str) -> float:
    """Numbers within 5 % of the answer, where that is a number and not 0; else equal but for case."""
    said, target = _number(prediction), _number(answer)
    if said is None or not target:
        return float(prediction.lower() == answer.lower())
    return float(abs(said - target) / abs(target) <= _TOLERANCE)


def _number(text: str) -> float | None:
    try:
        return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None

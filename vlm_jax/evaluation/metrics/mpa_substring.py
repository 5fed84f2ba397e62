"""The matching of MPA, a large model that trains a small one: needed to reproduce its table, unfit as a metric.

It deletes Thai vowels and tones, finds "1" in "2013", and an answer that comes to nothing in everything.
"""

import re

_SPACE, _NO_WORD = re.compile(r"\s+"), re.compile(r"\W+")


def mpa_substring(prediction: str, answer: str) -> float:
    """The answer's letters, digits and underscores stand in the prediction's, one after the other."""
    return float(_run_together(answer) in _run_together(prediction))


def _run_together(text: str) -> str:
    return _NO_WORD.sub("", _SPACE.sub("", text.lower()))

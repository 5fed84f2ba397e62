"""When two questions that look alike ask for different things, whatever their similarity.

A part that is inserted may be a name's: capitals tell in languages that have them, the topic in all.

Similarity alone joined 69 of 100 questions of which a year or a name was changed.
"""

import re
from functools import lru_cache

from data_pipeline.corpus.filters.canonical import canonical, integers
from data_pipeline.corpus.filters.pair import Pair
from data_pipeline.corpus.filters.samples import POLAR

_WORD = re.compile(r"[^\W\d_]+")


def one_edit(one: str, other: str) -> bool:
    """Whether canonical texts differ in nothing but an inserted part, or in one character, and have equal integers.

    A name that is replaced by another one differs in several characters on both sides. Thai names have no capitals, so
    that nothing but the shape of the edit tells them.
    """
    shorter, longer = sorted((one, other), key=len)
    start = _same_beginning(shorter, longer)
    if len(shorter) == len(longer):
        alike = shorter[start + 1 :] == longer[start + 1 :]
    else:
        alike = longer.endswith(shorter[start:])
    return alike and integers(one) == integers(other)


def _same_beginning(one: str, other: str) -> int:
    """How many characters two texts begin with in common; the first is not longer.

    By halves: slices are compared far faster than characters one by one.
    """
    low, high = 0, len(one)
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def same_thing(one: Pair, other: Pair, same_image: bool) -> bool:
    """Whether two pairs with questions alike are one: equal answers, or the same fact, and no topic of their own each.

    Of one fact, answers may be worded differently; answers of other numbers, or yes and no, are different ones.

    Args:
      same_image: pairs that show different images are different, too.
    """
    if one.topic and other.topic and one.topic != other.topic:
        return False
    if one.language != other.language or (same_image and one.image != other.image):
        return False
    left, right = answer_form(one.answer), answer_form(other.answer)
    if other_names(one.question, other.question):
        return False
    if left == right:
        return True
    if not one.fact_id or one.fact_id != other.fact_id:
        return False
    return integers(left) == integers(right) and not (left in POLAR and right in POLAR)


def other_names(one: str, other: str) -> bool:
    """Whether two questions name different things, as far as capitals tell.

    A name is added, or changed by more than one letter. The first word of a question has a capital in any case.
    """
    left, right = _names(one) - _words(other), _names(other) - _words(one)
    if not left or not right:
        return bool(left or right)
    return len(left) != 1 or len(right) != 1 or not one_edit(*left, *right) or abs(len(*left) - len(*right)) > 1


def _names(question: str) -> set[str]:
    words = [word for word in _WORD.findall(question)[1:] if len(word) > 1 and word not in ("BE", "CE", "AD", "BC")]
    if not any(word.islower() for word in words):
        return set()  # all in capitals
    return {word.casefold() for word in words if word[0].isupper()}


def _words(question: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(question)}


def contradict(one: Pair, other: Pair) -> bool:
    """Whether two pairs with questions alike say different things of the same one: a topic, a fact or an image.

    An answer that stands in the other ("1782", "in 1782") does not contradict it. Where neither has a topic, a fact or
    an image, the question alone says what is meant.
    """
    subjects = [(one.fact_id, other.fact_id), (one.image, other.image), (one.topic, other.topic)]
    if any(a or b for a, b in subjects) and not any(a and a == b for a, b in subjects):
        return False
    left, right = answer_form(one.answer), answer_form(other.answer)
    return one.language == other.language and left not in right and right not in left


@lru_cache(maxsize=65536)
def answer_form(answer: str) -> str:
    """The form in which answers are compared."""
    return canonical(answer)

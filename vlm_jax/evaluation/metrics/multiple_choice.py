"""Multiple choice: which option a reply chooses, said in any of the ways that models say it.

Options are lettered A, B, C … or ก, ข, ค …, in the question's text or as an argument. A reply that chooses none, or
more than one, is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.any_language import normalise, normalised, places

Options = Mapping[str, str]
"""{letter: text}, in order."""
_LATIN, _THAI = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "กขคงจฉชซ"
_MARKED = re.compile(rf"(?<!\S)[(\[]?([A-Za-z{_THAI}])[).:\]](?:\s+|(?<=[)\]])(?=\S))")
"""The letter before an option, as questions have it."""
_JOINED = r"\s*[)\]]?\s*(?:[,/&]|\b(?:or|and)\b|หรือ|และ)\s*[(\[]?"
_NO_CONCLUSION = r"(?!\s+(?:because|since|as|is|or|and|with|for)\b)"
_CONCLUDING = "|".join(
    (
        r"(?:answer|choice|option)\s*(?:is|would\s+be|[:：])\s*(?:the\s+)?(?:(?:option|choice|letter)\s+)?",
        r"(?:choose|select|pick)\s+(?:the\s+)?(?:(?:option|choice|letter|answer)\s+)?",
        r"(?:it\s+is|it['’]s)\s+(?:(?:option|choice|letter)\s+)?",
        r"\\boxed\s*\{\s*(?:\\text\s*\{\s*)?",
        r"(?:คำตอบ(?:สุดท้าย|ที่ถูกต้อง)?\s*(?:คือ|[:：])|ตอบ|เลือก)\s*(?:ข้อ|ตัวเลือก)?\s*",
    )
)


def multiple_choice(
    prediction: str, answers: Sequence[str], *, question: str = "", options: Sequence[str] | Options | None = None
) -> float:
    """1 where the reply chooses an accepted option, and no other.

    Args:
      answers: letters or texts of options.
      question: its text, which the options are read from unless they are given. Where it lists none, answers and
        replies are letters.
      options: texts, lettered A, B, C …, or {letter: text}.

    Raises:
      InputError: an accepted answer that is no option, or the letter of one and the text of another.
    """
    known = options_in(question) if options is None else _lettered(options)
    accepted = {_accepted(answer, known) for answer in answers}
    return float(chosen(prediction, known) in accepted)


def options_in(question: str) -> dict[str, str]:
    """{letter: text} of the options that a question lists: "A. red", "(A) red" or "A) red", each letter in turn.

    The longest such list, of two or more; of equally long ones the last. {} where there is none. An option ends where
    the next begins, the last one with its line.
    """
    marks = list(_MARKED.finditer(question))
    best: list[re.Match[str]] = []
    for alphabet in (_LATIN, _LATIN.lower(), _THAI):
        for place, first in enumerate(marks):
            if first[1] == alphabet[0]:
                run = [first]
                for mark in marks[place + 1 :]:
                    run += [mark] if mark[1] == alphabet[len(run) : len(run) + 1] else []
                best = run if len(run) >= max(2, len(best)) else best
    ends = [mark.start() for mark in best[1:]] + [len(question)]
    texts = [question[mark.end() : end] for mark, end in zip(best, ends, strict=False)]
    texts[-1:] = [text.partition("\n")[0] for text in texts[-1:]]
    return {mark[1].upper(): text.strip(" \t\r\n,;") for mark, text in zip(best, texts, strict=True)}


def chosen(reply: str, options: Options) -> str | None:
    """The letter that a reply chooses; None where it chooses none, or several.

    The first of these that finds anything decides: the reply is a letter or an option's text; it concludes with a
    letter ("the answer is B") or begins with one ("B. red"); has one in brackets; has the text of an option in it; has
    a letter by itself. A letter before the text of another option is no choice.

    Args:
      options: {letter: text}; {} where only letters are known.
    """
    text = re.sub(r"[*`]", "", reply).strip()
    letters = "".join(options) or _LATIN
    for find in (_whole, _concluded, _bracketed, _named, _alone):
        if found := find(text, letters, options):
            return found.pop() if len(found) == 1 else None
    return None


def _lettered(options: Sequence[str] | Options) -> dict[str, str]:
    if isinstance(options, Mapping):
        known = {letter.upper(): text for letter, text in options.items()}
    else:
        known = dict(zip(_LATIN, options, strict=False))
    if len(known) < max(2, len(options)) or any(len(letter) != 1 or not letter.isalnum() for letter in known):
        raise InputError(
            f"multiple_choice: the options are {options!r}; wanted two or more, each with a letter of its own"
        )
    return known


def _accepted(answer: str, options: Options) -> str:
    bare = answer.strip(" ().[]:").upper()
    found = {bare} if len(bare) == 1 and bare in (options or _LATIN + _THAI) else set()
    found |= {letter for letter, option in options.items() if normalised(answer, option)}
    if len(found) != 1:
        listed = ", ".join(f"{letter}. {option}" for letter, option in options.items()) or "no text of the question"
        why = "is the letter of one option and the text of another" if found else "is no option"
        raise InputError(f"multiple_choice: the accepted answer {answer!r} {why}; there is {listed}")
    return found.pop()


def _whole(text: str, letters: str, options: Options) -> set[str]:
    bare = text.strip(" \t\r\n()[]{}.,:;!\"'").upper()
    by_letter = {bare} if len(bare) == 1 and bare in letters else set()
    return by_letter | {letter for letter, option in options.items() if normalised(text, option)}


def _concluded(text: str, letters: str, options: Options) -> set[str]:
    """What sentences conclude with, and what the reply begins with; not the beginnings of a list of the options."""
    concluding, concluded_before, beginning, _ = _patterns(letters)
    stated: set[str] = set()
    for found in concluding.finditer(text):
        stated |= set(re.findall(rf"(?<!\w)[{letters}](?!\w)", found["said"] or found["end"].upper()))
        stated |= _text_after(text[found.end() :], options)
    stated |= {found["said"] for found in concluded_before.finditer(text)}
    begun: set[str] = set()
    lines = {found["said"].upper(): found for found in beginning.finditer(text)}
    if len(lines) == 1 or not stated:
        for letter, found in lines.items():
            rest = text[found.end() :]
            others = re.match(rf"{_JOINED}([{letters}])(?!\w)", rest)
            begun |= {letter, *(others.groups() if others else ())} | _text_after(rest, options)
    return stated | begun


def _text_after(rest: str, options: Options) -> set[str]:
    """The letter of the option, if any, whose text stands first in what follows a letter."""
    following = normalise(rest.partition("\n")[0])
    for letter, option in sorted(options.items(), key=lambda item: -len(item[1])):
        if next(places(normalise(option), following), -1) == 0:
            return {letter}
    return set()


def _bracketed(text: str, letters: str, options: Options) -> set[str]:
    return {found.upper() for found in re.findall(rf"[(\[]([{letters + letters.lower()}])[)\]]", text)}


def _named(text: str, letters: str, options: Options) -> set[str]:
    """Options whose texts stand in the reply, the longest first: "red" is not in "dark red" once more."""
    found, left = set(), normalise(text)
    for letter, option in sorted(options.items(), key=lambda item: -len(item[1])):
        words = normalise(option)
        for at in places(words, left):
            if not left[:at].endswith("not "):
                found.add(letter)
            left = left[:at] + "\n" * len(words) + left[at + len(words) :]
    return found


def _alone(text: str, letters: str, options: Options) -> set[str]:
    *_, alone = _patterns(letters)
    return {found["said"] for found in alone.finditer(text)} if options else set()


@lru_cache(maxsize=64)
def _patterns(letters: str) -> tuple[re.Pattern[str], ...]:
    """What finds letters behind a conclusion, before one, at the beginning of a line, and by themselves."""
    # A before a word is an article, as in "the answer is A dog", unless the sentence goes on about the letter.
    one = rf"(?<![\w'])[{letters}](?![\w'’\u0e00-\u0e7f])(?!(?<=[AI]){_NO_CONCLUSION}\s+[a-z])"
    said = rf"(?P<said>{one}(?:{_JOINED}{one})*)|(?P<end>(?i:[{letters}]))(?=[)\].]*\s*(?:\n|$))"
    return (
        re.compile(rf"(?i:(?<!\w)(?:{_CONCLUDING}))[(\[]?(?:{said})[)\]]?", re.MULTILINE),
        re.compile(rf"(?P<said>{one})[)\]]?\s+(?i:is\s+(?:the\s+)?(?:correct|right|best)\b)"),
        re.compile(rf"^[(\[]?(?P<said>(?i:[{letters}]))[).:\]](?=\s|$)", re.MULTILINE),
        re.compile(rf"(?<![Nn]ot )(?P<said>{one})"),
    )

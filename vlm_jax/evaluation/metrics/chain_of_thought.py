"""The short answer within a chain of thought: the one rule, for training data, filters and scores.

`split` is strict, for texts that are to have the form; `final_answer` finds what a model came to, whatever form it
chose, and may stand before any metric.
"""

import re

MARKS = ("Answer:", "คำตอบ:", "答案：", "答え：")
"""What stands before the short answer in the last line of a chain of thought, as it is written in training data."""
LABEL = r"(?<![A-Za-z0-9_])(?:(?:final\s+)?answer|คำตอบ|答案|答え)\s*[:：]"
"""The same as it is read, a pattern to be used without regard to case."""
_LABEL = re.compile(LABEL, re.IGNORECASE)
_AT_A_START = re.compile(rf"(?:^|\n|\.\s)\s*(?:{LABEL})[ \t]*(\S[^\n]*)", re.IGNORECASE)
_SENTENCE = r"(?<![A-Za-z0-9_])(?:the|my)\s+(?:(?:final|correct|right)\s+)?answer\s+is\b|คำตอบ(?:สุดท้าย|ที่ถูกต้อง)?\s*คือ"
_STATED = re.compile(
    rf"{LABEL}|(?P<sentence>{_SENTENCE})\s*[:：]?|คำตอบ(?:สุดท้าย|ที่ถูกต้อง)\s*[:：]"
    r"|^[^\w\n]*final\s+answer\b(?:\s+is\b)?\s*[:：]?",
    re.IGNORECASE | re.MULTILINE,
)
_BOXED = re.compile(r"\\boxed\s*\{")
_IN_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{(.*)\}", re.DOTALL)
_END_OF_THOUGHT = "</think>"
_EMPHASIS = "*_` \t\r\n"


def split(reasoning: str) -> tuple[str, str]:
    """(the steps, the answer behind the last label of the last line); an empty answer where there is none."""
    *before, last = reasoning.strip().rsplit("\n", 1)
    found = list(_LABEL.finditer(last))
    if not found:
        return reasoning.strip(), ""
    return "\n".join([*before, last[: found[-1].start()]]).strip(), last[found[-1].end() :].strip()


def answers_in(steps: str) -> list[str]:
    """What stands behind labels at the start of a line or a sentence."""
    return _AT_A_START.findall(steps)


def final_answer(text: str) -> str:
    """What a reply comes to: behind its last label or "the answer is", in its last \\boxed{}, or else its last line.

    Emphasis around it goes, and the full stop of a sentence. A reply of one line without any of these is the answer.
    """
    thought, end, rest = text.rpartition(_END_OF_THOUGHT)
    text = rest if end and rest.strip() else thought or rest
    text = text.replace("**", "").replace("__", "")
    places = [(one.start(), one.end(), one) for pattern in (_STATED, _BOXED) for one in pattern.finditer(text)]
    for _, end_of_label, found in sorted(places, key=lambda place: place[:2], reverse=True):
        if found.re is _BOXED:
            answer = _braced(text[end_of_label:])
        else:
            answer = _plain(next((line for line in text[end_of_label:].splitlines() if _plain(line)), ""))
            if found["sentence"]:
                answer = answer.removesuffix(".").rstrip()
        if answer:
            return answer
    return _plain(next((line for line in reversed(text.splitlines()) if _plain(line)), ""))


def _plain(line: str) -> str:
    return line.strip(_EMPHASIS)


def _braced(text: str) -> str:
    """What stands before the brace that closes the one before the text."""
    depth = 1
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if not depth:
            inner = text[:place].strip()
            found = _IN_TEXT.fullmatch(inner)
            return (found[1] if found else inner).strip()
    return _plain(text.splitlines()[0]) if text.strip() else ""

"""A model as the judge of an answer: yes, no or partly.

Who is asked is the caller's: here is what is asked, in `judge.txt`, and how a reply is read. Whole evaluations are
judged by `data_pipeline.judging`, which asks a teacher through its store and tells how far it agrees with a metric.
"""

import hashlib
import json
import re
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.chain_of_thought import final_answer

PROMPT = Path(__file__).with_name("judge.txt")
SCORES = {"yes": 1.0, "partly": 0.5, "no": 0.0}
"""What each verdict counts."""
SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": list(SCORES)}},
    "required": ["verdict"],
    "additionalProperties": False,
}
"""JSON schema of a reply, for servers that hold a model to one."""
_OBJECT = re.compile(r"\{[^{}]*\}")


def judge(prediction: str, answers: Sequence[str], *, question: str, ask: Callable[[str], str]) -> float:
    """1, 0.5 or 0 by what `ask`, which is given the prompt, replies.

    Raises:
      InputError: the reply is no verdict.
    """
    reply = ask(prompt(prediction, answers, question))
    if (found := verdict(reply)) is None:
        raise InputError(f"judge: the reply {reply[:80]!r} is no verdict; it is asked for {', '.join(SCORES)}")
    return SCORES[found]


def prompt(prediction: str, answers: Sequence[str], question: str) -> str:
    """What is asked. Answers of ten people that are the same are listed once."""
    accepted = "\n".join(f"- {json.dumps(answer, ensure_ascii=False)}" for answer in dict.fromkeys(answers))
    said = json.dumps(prediction, ensure_ascii=False)  # one line, whatever is in it
    return _template().substitute(question=question.strip(), accepted=accepted, prediction=said).strip()


def prompt_digest() -> str:
    """The SHA-256 of the prompt's file, in hexadecimal, which reports carry."""
    return hashlib.sha256(_template().template.encode()).hexdigest()


def verdict(reply: str) -> str | None:
    """yes, no or partly: the object that was asked for, alone or within a text, or the bare word; None of all else."""
    found = set()
    for text in _OBJECT.findall(reply):
        try:
            found.add(json.loads(text)["verdict"].strip().lower())
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    found = found or {final_answer(reply).strip(" .!\"'").lower()}
    return found.pop() if len(found) == 1 and found <= set(SCORES) else None


@lru_cache(maxsize=1)
def _template() -> string.Template:
    return string.Template(PROMPT.read_text(encoding="utf-8"))

"""What a record asks: its turns as questions that an evaluation can put to a model."""

from collections.abc import Sequence

from data_pipeline.prompting import PLAIN, Prompt, prompted
from data_pipeline.records import Record
from data_pipeline.sources import official
from vlm_jax.errors import InputError
from vlm_jax.evaluation import metrics
from vlm_jax.evaluation.runner import Question, text_of


def questions_of(record: Record, errors: list[str], *, prompt: Prompt = PLAIN, answered: bool = True) -> list[Question]:
    """The questions of a record: its last user turn with `answers`, or every turn that the assistant answers.

    A turn that weighs nothing in the loss shows no answer that is right, so it is not asked. What can be asked nothing
    is added to `errors`.

    Args:
      prompt: how they are asked.
      answered: what has no answer cannot be asked; else the last turn of a user is, to hand its answer in.
    """
    try:
        messages = prompted(record, prompt).messages
    except InputError as error:
        errors += error.lines
        return []
    known = official.of(record)
    groups = {name: value for name in ("split", "task", "fact_id") if (value := getattr(record, name)) is not None}
    groups |= known.groups
    language = (record.provenance or {}).get("language")
    if isinstance(language, str):
        groups["language"] = language

    def question(id: str, end: int, answers: list[str]) -> Question:
        alone = "" if prompt == PLAIN else text_of(record.messages[end - 1])
        return Question(id, messages[:end], answers, groups, alone, known.ids)

    turns = [index for index, message in enumerate(record.messages) if message["role"] == "assistant"]
    whole = len(record.messages)
    if record.answers:
        return [question(record.id, turns[-1] if turns and turns[-1] == whole - 1 else whole, list(record.answers))]
    turns = [index for index in turns if record.messages[index].get("weight", 1)]
    if not turns and not answered:
        return [question(record.id, whole, [])]
    if not turns:
        errors.append(f"{record.where}: has neither answers nor an assistant's turn to compare with")
    many = len(turns) > 1
    return [
        question(f"{record.id}#{number}" if many else record.id, index, [text_of(record.messages[index])])
        for number, index in enumerate(turns, start=1)
    ]


def answer_errors(questions: Sequence[Question], metric: str) -> list[str]:
    """Accepted answers that a metric cannot compare with, found by scoring nothing said; of one that needs more than
    texts nothing is found."""
    errors: list[str] = []
    if metrics.find(metric)[0].needs:
        return errors
    for question in questions:
        if not question.answers:
            continue
        try:
            metrics.score(metric, "", question.answers, question.text)
        except InputError as error:
            errors += [f"question {question.id!r}: {line}" for line in error.lines]
    return errors

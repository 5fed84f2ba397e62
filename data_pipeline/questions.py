"""What a record asks: its turns as questions that an evaluation can put to a model."""

from data_pipeline.records import Record
from vlm_jax.evaluation.runner import Question, text_of


def questions_of(record: Record, errors: list[str]) -> list[Question]:
    """The questions of a record: its last user turn with `answers`, or every turn that the assistant answers.

    A turn that weighs nothing in the loss shows no answer that is right, so it is not asked. What can be asked nothing
    is added to `errors`.
    """
    groups = {name: value for name in ("split", "task", "fact_id") if (value := getattr(record, name)) is not None}
    language = (record.provenance or {}).get("language")
    if isinstance(language, str):
        groups["language"] = language
    turns = [index for index, message in enumerate(record.messages) if message["role"] == "assistant"]
    if record.answers:
        last = turns[-1] if turns and turns[-1] == len(record.messages) - 1 else len(record.messages)
        return [Question(record.id, record.messages[:last], list(record.answers), groups)]
    turns = [index for index in turns if record.messages[index].get("weight", 1)]
    if not turns:
        errors.append(f"{record.where}: has neither answers nor an assistant's turn to compare with")
    many = len(turns) > 1
    return [
        Question(
            f"{record.id}#{number}" if many else record.id,
            record.messages[:index],
            [text_of(record.messages[index])],
            groups,
        )
        for number, index in enumerate(turns, start=1)
    ]

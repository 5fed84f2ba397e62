"""Context-augmented records: for an image an article, and questions that need both, written in one call.

Images are those that were generated, or a person's own (`data_pipeline.corpus.own_images`).
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, Field

from data_pipeline.corpus import prompts
from data_pipeline.corpus.stages.questions import Pair
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage, image_file
from data_pipeline.teachers.request import Request

FIELDS = ("count", "hint")


class Article(BaseModel):
    article: str = Field(min_length=1)
    pairs: list[Pair] = Field(min_length=1)


def requests(item: Item, settings: Settings) -> list[Request]:
    hint = f"The picture shows: {item['name']}\n" if item.get("name") else ""
    values = {"count": settings["context"]["questions"], "hint": hint}
    language = settings["languages"][0]
    text = prompts.read("context", language, FIELDS, settings["prompts"]).rendered(values)
    image = image_file(item, Path(settings["images"]))
    return [Request("text", text, (image,), subject={**values, "name": item.get("name", ""), "language": language})]


def read(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['id']}: {answer.failure}"]
    found = []
    for number, pair in enumerate(answer.value.pairs[: settings["context"]["questions"]]):
        found.append(
            {
                "id": f"{item['id']}/context-{number:02}",
                "topic": item.get("topic", ""),
                "task": "context",
                "split": item.get("split", "train"),
                "language": settings["languages"][0],
                "image": item["image"],
                "image_source": item.get("image_source", "generated"),
                "question": pair.question.strip(),
                "answer": pair.answer.strip(),
                "context": answer.value.article.strip(),
            }
        )
    return found, []


CONTEXT = Stage(
    name="context",
    teacher="text",
    form=Article,
    requests=requests,
    read=read,
    each=lambda settings: (1, settings["context"]["questions"]),
)

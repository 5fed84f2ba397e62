"""From topics to atomic facts that a question about a picture can ask for, each checked by another teacher."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from data_pipeline.corpus import prompts
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage
from data_pipeline.corpus.stages.topics import slug
from data_pipeline.teachers.request import Request

FIELDS = ("name", "local_name", "description", "count", "languages")
SUPPORT_FIELDS = ("name", "local_name", "description", "statement", "answers")
TOPIC = ("name", "local_name", "description", "domain")


class Fact(BaseModel):
    aspect: str = Field(min_length=1)
    statement: str = Field(min_length=1)
    answers: dict[str, str]
    visible: str = ""


class Facts(BaseModel):
    facts: list[Fact] = Field(min_length=1)


class Support(BaseModel):
    supported: bool
    askable: bool
    reason: str = ""


def requests(item: Item, settings: Settings) -> list[Request]:
    values = {
        **{name: item[name] for name in FIELDS[:3]},
        "count": settings["facts"]["each"],
        "languages": ", ".join(settings["languages"]),
    }
    text = prompts.read("facts", settings["language"], FIELDS, settings["prompts"]).rendered(values)
    return [Request("text", text, subject=values)]


def read(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    """The facts of a topic: of each aspect the first, with an answer in every language."""
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['name']}: {answer.failure}"]
    facts: dict[str, Item] = {}
    notes = []
    for fact in answer.value.facts[: settings["facts"]["each"]]:
        missing = [language for language in settings["languages"] if not fact.answers.get(language, "").strip()]
        identity = f"{item['id']}/{slug(fact.aspect)}"
        if missing:
            notes.append(f"{identity}: no answer in {', '.join(missing)}")
        elif identity in facts:
            notes.append(f"{identity}: a second fact of this aspect")
        else:
            topic = {name: item[name] for name in TOPIC}
            answers_of = {language: fact.answers[language].strip() for language in settings["languages"]}
            facts[identity] = {"id": identity, "topic": item["id"], **topic, **fact.model_dump(), "answers": answers_of}
    return list(facts.values()), notes


def are_checked(settings: Settings) -> bool:
    """Whether another teacher says of each fact if it is so."""
    return bool(settings["teachers"]["judge"]) and settings["facts"]["checked"]


def support_requests(item: Item, settings: Settings) -> list[Request]:
    answers = "; ".join(f"{language}: {answer}" for language, answer in item["answers"].items())
    values = {**{name: item[name] for name in SUPPORT_FIELDS[:4]}, "answers": answers}
    text = prompts.read("support", "en", SUPPORT_FIELDS, settings["prompts"]).rendered(values)
    return [Request("text", text, subject={**values, "answers": item["answers"], "aspect": item["aspect"]})]


def read_support(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['id']}: {answer.failure}"]
    if not (answer.value.supported and answer.value.askable):
        why = "not supported" if not answer.value.supported else "cannot be asked about a picture"
        return [], [f"{item['id']}: {why} ({answer.value.reason})"]
    return [item], []


FACTS = Stage(
    name="facts",
    teacher="text",
    form=Facts,
    requests=requests,
    read=read,
    each=lambda settings: (1, settings["facts"]["each"]),
)
SUPPORT = Stage(
    name="support", teacher="judge", form=Support, requests=support_requests, read=read_support, each=lambda _: (1, 0.9)
)

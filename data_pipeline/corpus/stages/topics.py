"""From domains to topics: concrete things with a name of their own, each once."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from pydantic import BaseModel, Field

from data_pipeline.corpus import prompts
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage
from data_pipeline.teachers.request import Request

FIELDS = ("subject", "domain", "count", "local_language")


class Topic(BaseModel):
    name: str = Field(min_length=1)
    local_name: str = ""
    description: str = Field(min_length=1)


class Topics(BaseModel):
    topics: list[Topic] = Field(min_length=1)


def requests(item: Item, settings: Settings) -> list[Request]:
    values = {
        "subject": settings["subject"],
        "domain": item["domain"],
        "count": settings["topics"]["each"],
        "local_language": settings["local_language"],
    }
    text = prompts.read("topics", settings["language"], FIELDS, settings["prompts"]).rendered(values)
    return [Request("text", text, subject=values)]


def read(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"domain {item['domain']!r}: {answer.failure}"]
    found = [one for one in answer.value.topics if one.name.strip()][: settings["topics"]["each"]]
    return [{"id": slug(one.name), "domain": item["domain"], **one.model_dump()} for one in found], []


def finish(items: list[Item]) -> tuple[list[Item], list[str]]:
    """Each topic once: the first of those with the same name in either script."""
    kept: list[Item] = []
    names: dict[str, str] = {}
    ids: set[str] = set()
    notes = []
    for item in items:
        # In this order, whatever the seed of Python's hashes: notes are part of what is the same to the byte.
        own = [key for name in (item["name"], item["local_name"]) if (key := plain(name))]
        before = next((names[key] for key in own if key in names), None)
        if before is not None or item["id"] in ids:
            notes.append(f"{item['name']} ({item['domain']}): is {before or item['name']} again")
            continue
        names |= dict.fromkeys(own, item["name"])
        ids.add(item["id"])
        kept.append(item)
    return kept, notes


def slug(name: str) -> str:
    """A name as it stands in ids and file names: Latin letters, digits, and hyphens.

    Where letters of other scripts are lost, a digest of the whole name is behind it.
    """
    decomposed = unicodedata.normalize("NFKD", name)
    plain = decomposed.encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    lost = any(letter.isalnum() and not letter.isascii() for letter in decomposed)
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:10]
    return "-".join(filter(None, (words, digest))) if lost or not words else words


def plain(name: str) -> str:
    """A name as names are compared: without marks, spaces and capitals."""
    return "".join(letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isalnum())


TOPICS = Stage(
    name="topics",
    teacher="text",
    form=Topics,
    requests=requests,
    read=read,
    each=lambda settings: (1, settings["topics"]["each"]),
    finish=finish,
)

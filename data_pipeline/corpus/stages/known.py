"""Topics that the student knows already are set aside: it is asked about each, and what it answers is compared.

First the teacher writes short questions with answers that can be checked, then the student is asked them without a
picture. Without a student, every topic is taken, and the corpus's card says so.
"""

from collections.abc import Sequence

from pydantic import BaseModel, Field

import vlm_jax
from data_pipeline.corpus import prompts
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage
from data_pipeline.teachers.request import Request

FIELDS = ("name", "local_name", "description", "count")


class Probe(BaseModel):
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)


class Probes(BaseModel):
    probes: list[Probe] = Field(min_length=1)


def probe_requests(item: Item, settings: Settings) -> list[Request]:
    values = {**{name: item[name] for name in FIELDS[:3]}, "count": settings["known"]["questions"]}
    text = prompts.read("probes", settings["language"], FIELDS, settings["prompts"]).rendered(values)
    return [Request("text", text, subject=values)]


def read_probes(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['name']}: {answer.failure}"]
    return [{**item, "probes": [probe.model_dump() for probe in answer.value.probes]}], []


def student_requests(item: Item, settings: Settings) -> list[Request]:
    return [
        Request("text", f"{probe['question']} {settings['known']['suffix']}".strip(), subject=probe)
        for probe in item["probes"]
    ]


def read_known(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    """The topic, unless the student answered as large a share of its questions as the setting says."""
    texts = [answer.value or "" for answer in answers]
    right = [
        vlm_jax.score("contains", text, [probe["answer"]]) == 1.0
        for text, probe in zip(texts, item["probes"], strict=True)
    ]
    share = sum(right) / len(right)
    probes = [
        {**probe, "student": text, "right": known}
        for probe, text, known in zip(item["probes"], texts, right, strict=True)
    ]
    if share >= settings["known"]["share"]:
        return [], [f"{item['name']}: the student knows it ({sum(right)} of {len(right)} answered)"]
    return [{**item, "probes": probes}], []


PROBES = Stage(name="probes", teacher="text", form=Probes, requests=probe_requests, read=read_probes)
KNOWN = Stage(
    name="known",
    teacher="student",
    requests=student_requests,
    read=read_known,
    each=lambda settings: (settings["known"]["questions"], 0.9),
)

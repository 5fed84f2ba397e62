"""Which form a file's entries are in, told by their keys.

The kind of file (JSON, CSV, Parquet, …) is `opening`'s to tell. A file that could be several things is not guessed at.
"""

from collections.abc import Mapping
from typing import Any

from data_pipeline.sources import csv_files, mpa, table
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import Form, keys_of
from data_pipeline.sources.instructions import Alpaca, PromptCompletion, QueryResponse
from data_pipeline.sources.knowledge_vqa import EncyclopedicVqa, InfoSeek, SkVqa, ViQuae
from data_pipeline.sources.llava import Llava
from data_pipeline.sources.openai import OpenAI, Records
from data_pipeline.sources.sharegpt import ShareGPT
from data_pipeline.sources.vqa import ChartQa, DocVqa, OkVqa, StVqa, TextVqa, VizWiz, VqaV2, is_okvqa
from vlm_jax.errors import InputError
from vlm_jax.processing.messages import is_empty

FORMS: Mapping[str, type[Form]] = {
    "llava": Llava,
    "records": Records,
    "table": table.Table,
    "sharegpt": ShareGPT,
    "openai": OpenAI,
    "textvqa": TextVqa,
    "stvqa": StVqa,
    "docvqa": DocVqa,
    "chartqa": ChartQa,
    "vizwiz": VizWiz,
    "vqav2": VqaV2,
    "okvqa": OkVqa,
    "infoseek": InfoSeek,
    "viquae": ViQuae,
    "encyclopedic_vqa": EncyclopedicVqa,
    "sk_vqa": SkVqa,
    "mpa": mpa.Mpa,
    "query_response": QueryResponse,
    "alpaca": Alpaca,
    "prompt_completion": PromptCompletion,
}


def detect(entries: Entries) -> str:
    """The name of the form. With no object to look at the choice does not matter: only errors are left to report.

    Raises:
      InputError: the entries fit no form, or several.
    """
    if entries.path.lower().endswith(csv_files.SUFFIXES):
        first = next(entries.objects(), {})
        return "encyclopedic_vqa" if "dataset_image_ids" in first else "table"
    first = None
    for value in entries.objects():
        found = _candidates(value, entries)
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"{entries.path}: cannot tell its format: the first entry has {keys_of(value)}, which fits "
                f"{' and '.join(found)}; give the format"
            )
        first = value if first is None else first
    if first is None:
        return "records"
    raise InputError(
        f"{entries.path}: cannot tell its format: the first entry has {keys_of(first)}, but neither 'conversations' "
        "(llava), 'messages' (records) nor 'image', 'question', 'answer' (table), nor the keys of "
        f"{', '.join(name for name in FORMS if name not in ('llava', 'records', 'table'))}"
    )


def _candidates(entry: Mapping[str, Any], entries: Entries) -> list[str]:
    found = []
    if "conversations" in entry:
        found.append("sharegpt" if "images" in entry else "llava")
    if "conversation" in entry:
        found.append("sharegpt")
    if "messages" in entry:
        speaks_from = isinstance(entry["messages"], list) and any(
            isinstance(message, Mapping) and "from" in message for message in entry["messages"]
        )
        beside = "images" in entry or not is_empty(entry.get("image"))
        found.append("sharegpt" if beside or speaks_from else "records")
    if entry.keys() >= {"query", "response"}:
        found.append("query_response")
    if entry.keys() >= {"instruction", "output"}:
        found.append("alpaca")
    if "prompt" in entry and "messages" not in entry and ("completion" in entry or "chosen" in entry):
        found.append("prompt_completion")
    if "image_path" in entry and any(question in entry for question, _, _ in mpa.KINDS.values()):
        found.append("mpa")
    if entry.keys() >= {"imgname", "query", "label"}:
        found.append("chartqa")
    if entry.keys() >= {"question", "question_id"}:
        if "file_path" in entry:
            found.append("stvqa")
        if isinstance(entry.get("image_id"), str):
            found.append("textvqa")
        elif "image_id" in entry:
            found.append("okvqa" if is_okvqa(entries) else "vqav2")
    if entry.keys() >= {"question", "questionId", "image"}:
        found.append("docvqa")
    if entry.keys() >= {"question", "data_id", "image_id"}:
        found.append("infoseek")
    if entry.keys() >= {"input", "output", "image"} and isinstance(entry["output"], Mapping):
        found.append("viquae")
    if entry.keys() >= {"question", "dataset_image_ids", "question_type"}:
        found.append("encyclopedic_vqa")
    if "context" in entry and isinstance(entry.get("questions"), list):
        found.append("sk_vqa")
    answers = entry.get("answers")
    many = isinstance(answers, list) and any(isinstance(answer, Mapping) for answer in answers)
    if entry.keys() >= {"image", "question"} and ("answerable" in entry or many) and "image_id" not in entry:
        found.append("vizwiz")
    if not found and len({*entry, *(["answer"] if "answers" in entry else [])} & set(table.COLUMNS)) >= 2:
        found.append("table")
    return list(dict.fromkeys(found))

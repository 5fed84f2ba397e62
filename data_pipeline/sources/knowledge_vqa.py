"""Official files of questions that need knowledge beyond the image: InfoSeek, ViQuAE, Encyclopedic-VQA and SK-VQA.

What the published files say of the knowledge itself (the entity, the article, the evidence) is kept in `provenance`, or
in `context` where it is a text that answers the question.
"""

import ast
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.sources import official
from data_pipeline.sources.containers import Entries
from data_pipeline.sources.expanded import ExpandedEntries
from data_pipeline.sources.forms import Options, text_of
from data_pipeline.sources.json_files import from_cell, open_document, open_lines
from data_pipeline.sources.vqa import Vqa, answers_in
from data_pipeline.values import as_written, json_type, quoted
from vlm_jax import locations

_BETWEEN = "&&"
"""The parts of an answer of Encyclopedic-VQA that is a list."""
_EXTENSIONS = ("jpg", "JPEG", "jpeg", "JPG", "png", "PNG")


class InfoSeek(Vqa):
    """InfoSeek: lines of `{"data_id", "image_id", "question", "answer", "answer_eval", "data_split"}`.

    Beside `infoseek_val.jsonl`, `infoseek_val_qtype.jsonl` gives each question's type and `infoseek_val_withkb.jsonl`
    its entity. `answer_eval` is what the official evaluation accepts; of a number that is a range, which stands among
    `answers` as the JSON text `{"wikidata": …, "range": [low, high]}`. Trained on is `answer`.

    Images are OVEN's, `oven_images/{first two digits}/{image_id}` with the extension that they came with.
    """

    task = "infoseek"
    id_keys = ("data_id", "id")
    official_ids = ("data_id",)
    keys = ("question", "data_id", "image_id")

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        self._types, self._entities = (self._beside(entries, name) for name in ("qtype", "withkb"))

    def has_answers(self, entries: Entries) -> bool:
        return any(value.get("answer") or value.get("answer_eval") for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        if not entry.get("answer_eval"):
            if entry.get("answer") and not self.options.training:
                errors.append("has no 'answer_eval', which the official evaluation compares with; give the newer file")
            return answers_in(entry.get("answer"), errors)
        value = entry["answer_eval"]
        answers = [_accepted(one, errors) for one in (value if isinstance(value, list) else [value])]
        return [answer for answer in answers if answer]

    def learned_of(self, entry: Mapping[str, Any], answers: list[str]) -> list[str]:
        return answers_in(entry.get("answer"), []) or answers

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        name = text_of(entry, "image_id", "image's id", errors)
        digits = name.rpartition("_")[2][:2]
        folders = (f"oven_images/{digits}", digits, "oven_images", "infoseek_images")
        return _with_extension(self.options.root, self.folders.path_of(name, *folders))

    def split_name(self, entry: Mapping[str, Any]) -> str:
        named = entry.get("data_split")
        return named.partition("_")[0] if isinstance(named, str) and named else super().split_name(entry)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """`data_split` without the name of the split: `unseen_question` or `unseen_entity`."""
        named = entry.get("data_split")
        kind = _of(self._types, entry).get("question_type")
        return {
            "data_split": named.partition("_")[2] if isinstance(named, str) else None,
            "question_type": kind.lower() if isinstance(kind, str) else None,
        }

    def more_of(self, entry: Mapping[str, Any], errors: list[str]) -> dict[str, Any]:
        for file in (self._types, self._entities):
            if file is not None and entry.get("data_id") not in file:
                errors.append(f"{file.path} has no line for the question {entry.get('data_id')!r}; add it")
        entity = _of(self._entities, entry)
        known = {name: entity[name] for name in ("entity_id", "entity_text") if isinstance(entity.get(name), str)}
        return {"provenance": known}

    @staticmethod
    def _beside(entries: Entries, name: str) -> official.EntriesById | None:
        stem, dot, extension = entries.path.rpartition(".")
        path = f"{stem}_{name}{dot}{extension}"
        if extension != "jsonl" or not locations.is_file(path):
            return None
        return official.EntriesById(open_lines(path), "data_id", str, "line")


class ViQuae(Vqa):
    """ViQuAE: lines of `{"id", "image", "input", "output": {"original_answer", "answer": [texts]}}`, KILT's form.

    `image` is the name of a file in `images`; `url`, where it came from, is not fetched.
    """

    task = "viquae"
    id_keys = ("id",)
    official_ids = ("id",)
    question_key = "input"
    keys = ("input", "image", "output")

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        if "validation" in entries.path.rpartition("/")[2].lower():
            self.split = "validation"

    def has_answers(self, entries: Entries) -> bool:
        return any(_outputs(value) for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        output = entry.get("output")
        if output is not None and not isinstance(output, Mapping):
            errors.append(f"'output' is {json_type(output)}; it must be an object with 'answer' and 'original_answer'")
            return None
        return answers_in(_outputs(entry), errors)

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        return self.folders.path_of(text_of(entry, "image", "image's name", errors), "images")

    def more_of(self, entry: Mapping[str, Any], errors: list[str]) -> dict[str, Any]:
        return {"provenance": {name: entry[name] for name in ("wikidata_id", "kilt_id") if _is_text(entry.get(name))}}


class EncyclopedicVqa(Vqa):
    """Encyclopedic-VQA: rows of `question`, `answer`, `question_type`, `dataset_name`, `dataset_image_ids`, ….

    A row with several image ids is as many questions. `answer` holds several people's between `|`; those of
    `multi_answer` hold several parts between `&&`, which stay together, and end with it where there is one part alone,
    so that the metric knows them. `evidence` is the context.

    iNaturalist's images are found by `inaturalist/val.json` and `inaturalist/train.json` as iNaturalist 2021 has them,
    or as `inaturalist/{id}.jpg`; landmarks as `landmarks/{a}/{b}/{c}/{abc…}.jpg`.
    """

    task = "encyclopedic_vqa"
    id_keys = ("id",)
    official_ids = ()
    keys = ("question", "dataset_image_ids", "question_type", "dataset_name")

    TYPES = ("templated", "automatic", "multi_answer", "2_hop")

    @classmethod
    def expanded(cls, entries: Entries) -> Entries:
        return ExpandedEntries(entries, one_row_an_image)

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        self._inaturalist = [
            official.EntriesById(open_document(path, ("images",)), "id", int, "image")
            for name in ("val", "train")
            if locations.is_file(path := locations.join(options.root, f"inaturalist/{name}.json"))
        ]

    def has_answers(self, entries: Entries) -> bool:
        return any(value.get("answer") for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        kind = entry.get("question_type")
        if kind not in self.TYPES:
            errors.append(f"'question_type' is {kind!r}; the official ones are {', '.join(self.TYPES)}")
        if not entry.get("answer"):
            return None
        answers = [answer.strip() for answer in entry["answer"].split("|") if answer.strip()]
        lists = kind == "multi_answer"
        return [f"{answer}{_BETWEEN}" if lists and _BETWEEN not in answer else answer for answer in answers] or None

    def learned_of(self, entry: Mapping[str, Any], answers: list[str]) -> list[str]:
        return [", ".join(part.strip() for part in answer.split(_BETWEEN) if part.strip()) for answer in answers]

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        name = text_of(entry, "dataset_image_ids", "image's id", errors)
        if entry.get("dataset_name") == "inaturalist":
            return f"inaturalist/{self._inaturalist_name(name)}"
        if entry.get("dataset_name") == "landmarks":
            below = "/".join([*name[:3], f"{name}.jpg"])
            return self.folders.path_of(below, "landmarks/train", "landmarks")
        errors.append(f"'dataset_name' is {entry.get('dataset_name')!r}; there are inaturalist and landmarks")
        return ""

    def split_name(self, entry: Mapping[str, Any]) -> str:
        named = entry.get("encyclopedic_vqa_split")
        return named if isinstance(named, str) and named else super().split_name(entry)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        seen = {"true": "seen in training", "false": "unseen"}
        return {
            "question_type": entry.get("question_type"),
            "dataset": entry.get("dataset_name"),
            "wikipedia_page": seen.get(str(entry.get("wikipedia_url_used_in_train")).lower()),
        }

    def more_of(self, entry: Mapping[str, Any], errors: list[str]) -> dict[str, Any]:
        known = {name: entry[name] for name in ("wikipedia_url", "wikipedia_title") if _is_text(entry.get(name))}
        context = {"context": entry["evidence"]} if _is_text(entry.get("evidence")) else {}
        return {**context, "provenance": known}

    def _inaturalist_name(self, name: str) -> str:
        number = int(name) if name.isdecimal() else None
        found = next((image for file in self._inaturalist if (image := file.get(number))), {})
        return found["file_name"] if _is_text(found.get("file_name")) else f"{name}.jpg"


class SkVqa(Vqa):
    """SK-VQA: `image`, `context`, `question` and `answer` or `answers`; or `questions` and `answers` of one article.

    `answers` of one question may be a list, or the text of a list.
    """

    task = "sk_vqa"
    official_ids = ()
    keys = ("context", "question", "image")

    @classmethod
    def expanded(cls, entries: Entries) -> Entries:
        first = next(entries.objects(), {})
        return ExpandedEntries(entries, one_question_an_entry) if isinstance(first.get("questions"), list) else entries

    def has_answers(self, entries: Entries) -> bool:
        return any(value.get("answer") or value.get("answers") for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        key = "answers" if entry.get("answers") else "answer"
        value = _as_list(entry.get(key))
        if isinstance(value, list) or value is None:
            return answers_in(value, errors)
        return [text_of({**entry, key: value}, key, "answer", errors)]

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        return self.folders.path_of(text_of(entry, "image", "image's name", errors), "images")

    def more_of(self, entry: Mapping[str, Any], errors: list[str]) -> dict[str, Any]:
        return {"context": text_of(entry, "context", "context", errors)}


def one_row_an_image(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """A row of Encyclopedic-VQA as one for each of its images; they stand between `|`, or in a list."""
    value = from_cell(row.get("dataset_image_ids"))
    names = value if isinstance(value, list) else value.split("|") if isinstance(value, str) else [value]
    names = [as_written(name) for name in names if name not in (None, "")] or [None]
    return [{**row, "dataset_image_ids": name.strip() if isinstance(name, str) else name} for name in names]


def one_question_an_entry(entry: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """An article of SK-VQA with its questions as one entry for each; as it is where the lists do not fit together."""
    questions, answers = entry.get("questions"), entry.get("answers")
    if not isinstance(questions, list) or not isinstance(answers, list) or len(questions) != len(answers):
        return [entry]
    rest = {key: value for key, value in entry.items() if key not in ("questions", "answers", "id", "question_id")}
    name = next((entry[key] for key in ("question_id", "id") if entry.get(key) not in (None, "")), None)
    named = [{} if name is None else {"id": f"{name}/{number}"} for number in range(1, len(questions) + 1)]
    return [
        {**rest, **id, "question": question, "answer": answer}
        for question, answer, id in zip(questions, answers, named, strict=True)
    ] or [entry]


def _accepted(value: Any, errors: list[str]) -> str:
    """An answer of `answer_eval` as a text."""
    if isinstance(value, str):
        return value
    if isinstance(as_written(value), str):
        return as_written(value)
    bounds = value.get("range") if isinstance(value, Mapping) else None
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(map(_is_number, bounds)):
        shown = quoted(json.dumps(value, default=str))
        errors.append(f"'answer_eval' has {shown}; wanted texts, or {{'wikidata', 'range': [low, high]}}")
        return ""
    return json.dumps({"wikidata": value.get("wikidata"), "range": bounds})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _of(file: official.EntriesById | None, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    return {} if file is None else file.get(entry.get("data_id")) or {}


def _outputs(entry: Mapping[str, Any]) -> list[Any]:
    """The answers of an entry in KILT's form, the original one first, each once."""
    output = entry.get("output")
    if not isinstance(output, Mapping):
        return []
    others = output.get("answer")
    every = [output.get("original_answer"), *(others if isinstance(others, list) else [others])]
    found = [answer for answer in every if answer not in (None, "")]
    return [answer for index, answer in enumerate(found) if answer not in found[:index]]


def _as_list(value: Any) -> Any:
    """A list that is written as text, in JSON or as Python writes it; anything else as it is."""
    value = from_cell(value)
    if isinstance(value, str) and value.strip()[:1] == "[":
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            return ast.literal_eval(value.strip())
    return value


def _with_extension(root: str, path: str) -> str:
    """The path with the first extension that is there; .jpg where none is."""
    names = [f"{path}.{extension}" for extension in _EXTENSIONS]
    return next((name for name in names if locations.is_file(locations.join(root, name))), names[0])

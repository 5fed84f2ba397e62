"""The official files of the VQA family: TextVQA, ST-VQA, ChartQA, VizWiz, VQAv2 and OK-VQA.

Each gives one question about one image and up to ten people's answers. All of the answers are kept, for the metrics;
the one to train on is picked by `forms.pick_answer`. "unanswerable" and "unsuitable" are answers like others. Where
the images lie below the image root is known for each data set as it is published.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from data_pipeline.sources.containers import Entries
from data_pipeline.sources.forms import (
    Form,
    ImageFolders,
    Options,
    pick_answer,
    question_and_answer,
    require,
    text_of,
)
from data_pipeline.values import as_written, json_type
from vlm_jax.errors import InputError

_SPLIT = re.compile(r"(?<![a-z])(train|val|test(?:-dev|-std)?)(20\d\d)?(?![a-z])")


class Vqa(Form):
    """What the data sets have in common; a subclass says where its question, image and answers stand."""

    id_keys = ("question_id", "id")
    images_beside = False
    task = ""
    question_key = "question"
    keys: tuple[str, ...] = ("question", "question_id")
    """Each is in some entry, or the file is of another form."""

    advice = ""
    """The end of the line that says that there are no answers."""

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        for key in self.keys:
            require(entries, (key,), self.task)
        self.folders = ImageFolders(options.root)
        self.split = split_of(entries)
        if options.training and not self.has_answers(entries):
            raise InputError(
                f"{entries.path}: no entry has answers, as in a test split, so there is nothing to learn; train on "
                f"the split with answers, or read this one for evaluation only{self.advice}"
            )

    def has_answers(self, entries: Entries) -> bool:
        return any(value.get("answers") for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        """All answers given, or None where the entry has none."""
        return answers_in(entry.get("answers"), errors)

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        """The path of the image, relative to the image root."""
        raise NotImplementedError

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        errors: list[str] = []
        question = text_of(entry, self.question_key, "question", errors)
        image = entry["image"] if isinstance(entry.get("image"), bytes) else self.image_of(entry, errors)
        answers = self.answers_of(entry, errors)
        if not errors and answers is None and self.options.training:
            errors.append("has no answers, so there is nothing to learn; remove the entry")
        if errors:
            raise InputError(errors)
        answer = None
        if self.options.training:
            identifier = next((entry[key] for key in self.id_keys if entry.get(key) is not None), question)
            answer = pick_answer(answers, self.options, str(identifier))
        fields = {} if answers is None else {"answers": answers}
        messages = question_and_answer(question, [image] if image else [], answer)
        return {**fields, "task": self.task, "messages": messages}


class TextVqa(Vqa):
    """TextVQA 0.5.1: `{"data": [{"question", "question_id", "image_id", "answers": 10 texts, "set_name"}]}`."""

    task = "textvqa"
    keys = ("question", "question_id", "image_id")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        name = text_of(entry, "image_id", "image's id", errors)
        split = entry.get("set_name") or self.split
        # The validation split's images are published among the training ones.
        return self.folders.path_of(f"{name}.jpg", "test_images" if split == "test" else "train_images")


class StVqa(Vqa):
    """ST-VQA, task 1: `{"data": [{"question_id", "question", "answers", "file_path", "dataset"}]}`."""

    task = "stvqa"
    keys = ("question", "question_id", "file_path")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        return text_of(entry, "file_path", "image's path", errors)


class ChartQa(Vqa):
    """ChartQA: `[{"imgname", "query", "label"}]`, one answer; images in `{split}/png`."""

    task = "chartqa"
    question_key = "query"
    keys = ("imgname", "query")

    def has_answers(self, entries: Entries) -> bool:
        return any("label" in value for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        return [text_of(entry, "label", "answer", errors)] if "label" in entry else None

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        folders = (f"{self.split}/png", "png") if self.split else ("png",)
        return self.folders.path_of(text_of(entry, "imgname", "image's name", errors), *folders)


class VizWiz(Vqa):
    """VizWiz: `[{"image", "question", "answers": [{"answer"}], "answer_type", "answerable"}]`, without ids."""

    task = "vizwiz"
    keys = ("image", "question")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        name = text_of(entry, "image", "image's name", errors)
        return self.folders.path_of(name, *([self.split] if self.split else []))


class VqaV2(Vqa):
    """VQAv2: questions, and annotations matched by `question_id`; or one list that has `answers` already.

    Images are `COCO_{split}_{image_id of 12 digits}.jpg`, in the image root or in a folder named like the split.
    """

    task = "vqav2"
    keys = ("question", "question_id", "image_id")
    advice = ". The annotations are looked for beside the questions; give them as QUESTIONS.json+ANNOTATIONS.json"

    def __init__(self, entries: Entries, options: Options):
        annotations = entries.lists.get("annotations")
        self.annotations = None if annotations is None else _Annotations(annotations)
        super().__init__(entries, options)
        subtype = entries.header.get("data_subtype")
        self.split = (split_of(entries) if not isinstance(subtype, str) else subtype).replace("-dev", "")
        if self.split in ("train", "val", "test"):
            self.split += "2015" if self.split == "test" else "2014"
        if not self.split and not any("image" in value for value in entries.objects()):
            raise InputError(
                f"{entries.path}: neither 'data_subtype' nor the file's name says which images these are; "
                "name the file after its split, such as train2014_questions.json"
            )
        if self.annotations is not None and not any(
            self.annotations.has(value.get("question_id")) for value in entries.objects()
        ):
            raise InputError(
                f"{annotations.path}: annotates none of the questions of {entries.path}; give the annotations of "
                "the same split"
            )

    def has_answers(self, entries: Entries) -> bool:
        return self.annotations is not None or super().has_answers(entries)

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        if self.annotations is None:
            return super().answers_of(entry, errors)
        return self.annotations.answers(entry.get("question_id"), errors)

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        if isinstance(entry.get("image"), str) and entry["image"]:
            return entry["image"]
        number = entry.get("image_id")
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            found = f"is {json_type(number)}" if number is None or not isinstance(number, int) else "is negative"
            errors.append(f"'image_id' {found}; it must be the number of a COCO image")
            return ""
        return self.folders.path_of(f"COCO_{self.split}_{number:012d}.jpg", self.split)


class OkVqa(VqaV2):
    """OK-VQA: VQAv2's files with other questions."""

    task = "okvqa"


def _is_id(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


class _Annotations:
    """The annotations of VQAv2's form, found by question; only the ids are held in memory."""

    def __init__(self, entries: Entries):
        values = (entries[index].value for index in range(len(entries)))
        ids = [value.get("question_id") if isinstance(value, Mapping) else None for value in values]
        wrong = [index for index, id in enumerate(ids) if not _is_id(id)]
        if wrong:
            found = ids[wrong[0]]
            found = "of more than 64 bits" if type(found) is int else json_type(found)
            raise InputError(
                f"{entries.path}, annotation {wrong[0] + 1}: 'question_id' is {found}; it must be "
                f"a whole number{f' (and so in {len(wrong) - 1} more)' if wrong[1:] else ''}"
            )
        self._entries = entries
        self._ids, self._places = _sorted(np.asarray(ids, np.int64))

    def _find(self, question: Any) -> int | None:
        if not _is_id(question):
            return None
        at = int(np.searchsorted(self._ids, question))
        return int(self._places[at]) if at < len(self._ids) and self._ids[at] == question else None

    def has(self, question: Any) -> bool:
        return self._find(question) is not None

    def answers(self, question: Any, errors: list[str]) -> list[str] | None:
        place = self._find(question)
        if place is None:
            errors.append(f"{self._entries.path} has no annotation for the question {question!r}; add it")
            return None
        return answers_in(self._entries[place].value.get("answers"), errors)


def _sorted(ids: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    order = np.argsort(ids, kind="stable")
    return ids[order], order


def answers_in(value: Any, errors: list[str]) -> list[str] | None:
    """The answers in a list of texts or of `{"answer": text}`; None where there are none."""
    if value is None or value == []:
        return None
    answers = (
        [as_written(one.get("answer") if isinstance(one, Mapping) else one) for one in value]
        if isinstance(value, list)
        else []
    )
    wrong = [answer for answer in answers if not isinstance(answer, str)]
    if not answers or wrong:
        found = f"a list with {json_type(wrong[0])} in it" if wrong else json_type(value)
        errors.append(f"'answers' is {found}; it must be a list of texts or of objects with 'answer'")
        return None
    return answers


def split_of(entries: Entries) -> str:
    """The split that a file's name says, with its year where it has one, or ""."""
    name = entries.path.replace("\\", "/").rpartition("/")[2].lower()
    found = _SPLIT.search(name)
    return found.group(1) + (found.group(2) or "") if found else ""


def is_okvqa(entries: Entries) -> bool:
    """Whether a file of VQAv2's form is OK-VQA's, as its description or its path says."""
    info = entries.header.get("info")
    described = str(info.get("description", "")) if isinstance(info, Mapping) else ""
    return any(name in text.lower() for text in (described, entries.path) for name in ("okvqa", "ok-vqa", "ok_vqa"))


def annotations_beside(path: str) -> str:
    """The name VQAv2 and OK-VQA give the annotations of a questions file, or ""."""
    folder, slash, name = path.rpartition("/")
    if "questions" not in name:
        return ""
    beside = re.sub(r"(OpenEnded|MultipleChoice)_", "", name).replace("questions", "annotations")
    return f"{folder}{slash}{beside}"

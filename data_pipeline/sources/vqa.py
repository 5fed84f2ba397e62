"""The official files of the VQA family: TextVQA, ST-VQA, DocVQA, ChartQA, VizWiz, VQAv2 and OK-VQA.

Each gives one question about one image and up to ten people's answers. All of the answers are kept, for the metrics;
the one to train on is picked by `forms.pick_answer`. "unanswerable" and "unsuitable" are answers like others. Where
the images lie below the image root is known for each data set as it is published. What the official evaluation knows a
question by, and the groups it counts it in, are kept too (`official`).
"""

import re
from collections.abc import Mapping
from typing import Any

from data_pipeline.sources import official
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
from vlm_jax.errors import InputError, gathered

_SPLIT = re.compile(r"(?<![a-z])(train|val|test(?:-dev|-std)?)(20\d\d)?(?![a-z])")
_YEAR = re.compile(r"20\d\d$")


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

    official_ids: tuple[str, ...] = ("question_id",)
    """The fields that the official evaluation knows a question by."""

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        absent: list[str] = []
        for key in self.keys:
            with gathered(absent):
                require(entries, (key,), self.task)
        if absent:
            raise InputError(absent)
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

    def learned_of(self, entry: Mapping[str, Any], answers: list[str]) -> list[str]:
        """Those of the answers that one is trained on."""
        return answers

    def split_name(self, entry: Mapping[str, Any]) -> str:
        """The split as the data set calls it, without the year of its images; "" where that is not said."""
        return _YEAR.sub("", self.split)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """What questions are told apart by in a report."""
        return {}

    def more_of(self, entry: Mapping[str, Any], errors: list[str]) -> dict[str, Any]:
        """Other fields of the record, and what its provenance holds besides, under `provenance`."""
        return {}

    def convert(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        errors: list[str] = []
        question = text_of(entry, self.question_key, "question", errors)
        image = entry["image"] if isinstance(entry.get("image"), bytes) else self.image_of(entry, errors)
        answers = self.answers_of(entry, errors)
        more = self.more_of(entry, errors)
        if not errors and answers is None and self.options.training:
            errors.append("has no answers, so there is nothing to learn; remove the entry")
        if errors:
            raise InputError(errors)
        answer = None
        if self.options.training:
            identifier = next((entry[key] for key in self.id_keys if entry.get(key) is not None), question)
            answer = pick_answer(self.learned_of(entry, answers), self.options, str(identifier))
        fields: dict[str, Any] = {} if answers is None else {"answers": answers}
        known = official.written(entry, self.official_ids, self.split_name(entry), self.groups_of(entry))
        provenance = {**({official.KEY: known} if known else {}), **more.pop("provenance", {})}
        fields |= {**more, "task": self.task, **({"provenance": provenance} if provenance else {})}
        messages = question_and_answer(question, [image] if image else [], answer)
        return {**fields, "messages": messages}


class TextVqa(Vqa):
    """TextVQA 0.5.1: `{"data": [{"question", "question_id", "image_id", "answers": 10 texts, "set_name"}]}`."""

    task = "textvqa"
    keys = ("question", "question_id", "image_id")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        name = text_of(entry, "image_id", "image's id", errors)
        split = entry.get("set_name") or self.split
        # The validation split's images are published among the training ones.
        return self.folders.path_of(f"{name}.jpg", "test_images" if split == "test" else "train_images")

    def split_name(self, entry: Mapping[str, Any]) -> str:
        return _named_split(entry.get("set_name")) or super().split_name(entry)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"image_class": official.first_of(entry.get("image_classes"))}


class StVqa(Vqa):
    """ST-VQA, task 1: `{"data": [{"question_id", "question", "answers", "file_path", "dataset"}]}`."""

    task = "stvqa"
    keys = ("question", "question_id", "file_path")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        return text_of(entry, "file_path", "image's path", errors)

    def split_name(self, entry: Mapping[str, Any]) -> str:
        return _named_split(entry.get("set_name")) or super().split_name(entry)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"dataset": entry.get("dataset")}


class DocVqa(Vqa):
    """DocVQA, task 1: `{"data": [{"questionId", "question", "image", "docId", "answers", "data_split"}]}`."""

    task = "docvqa"
    id_keys = ("questionId", "id")
    official_ids = ("questionId",)
    keys = ("question", "questionId", "image")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        return text_of(entry, "image", "image's path", errors)

    def split_name(self, entry: Mapping[str, Any]) -> str:
        return _named_split(entry.get("data_split")) or super().split_name(entry)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        return {"question_type": official.first_of(entry.get("question_types"))}


CHARTQA_SOURCES = ("human", "augmented")


class ChartQa(Vqa):
    """ChartQA: `[{"imgname", "query", "label"}]`, one answer; images in `{split}/png`.

    `{split}_human.json` and `{split}_augmented.json` are told apart by their names.
    """

    task = "chartqa"
    question_key = "query"
    official_ids = ()
    keys = ("imgname", "query")

    def __init__(self, entries: Entries, options: Options):
        super().__init__(entries, options)
        self._file_name = _name_of(entries)

    def has_answers(self, entries: Entries) -> bool:
        return any("label" in value for value in entries.objects())

    def answers_of(self, entry: Mapping[str, Any], errors: list[str]) -> list[str] | None:
        return [text_of(entry, "label", "answer", errors)] if "label" in entry else None

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        folders = (f"{self.split}/png", "png") if self.split else ("png",)
        return self.folders.path_of(text_of(entry, "imgname", "image's name", errors), *folders)

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Who wrote the question: people, or a program from a caption. A list of both says it in `type`."""
        kind = entry.get("type")
        name = kind if isinstance(kind, str) else self._file_name
        return {"source": next((source for source in CHARTQA_SOURCES if source in name.lower()), None)}


class VizWiz(Vqa):
    """VizWiz: `[{"image", "question", "answers": [{"answer"}], "answer_type", "answerable"}]`, without ids."""

    task = "vizwiz"
    official_ids = ("image",)
    keys = ("image", "question")

    def image_of(self, entry: Mapping[str, Any], errors: list[str]) -> str:
        name = text_of(entry, "image", "image's name", errors)
        return self.folders.path_of(name, *([self.split] if self.split else []))

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        value = entry.get("answerable")
        answerable = ("yes" if value else "no") if isinstance(value, int) else None
        return {"answer_type": entry.get("answer_type"), "answerable": answerable}


class VqaV2(Vqa):
    """VQAv2: questions, and annotations matched by `question_id`; or one list that has `answers` already.

    Images are `COCO_{split}_{image_id of 12 digits}.jpg`, in the image root or in a folder named like the split.
    """

    task = "vqav2"
    keys = ("question", "question_id", "image_id")
    advice = ". The annotations are looked for beside the questions; give them as QUESTIONS.json+ANNOTATIONS.json"

    def __init__(self, entries: Entries, options: Options):
        annotations = entries.lists.get("annotations")
        self.annotations = None
        if annotations is not None:
            self.annotations = official.EntriesById(annotations, "question_id", int, "annotation")
            _check_same_split(entries, annotations)
        super().__init__(entries, options)
        subtype = entries.header.get("data_subtype")
        named = split_of(entries) if not isinstance(subtype, str) else subtype
        self._named, self.split = _YEAR.sub("", named), named.replace("-dev", "")
        types = {} if annotations is None else annotations.header.get("question_types")
        self._types = types if isinstance(types, Mapping) else {}
        if self.split in ("train", "val", "test"):
            self.split += "2015" if self.split == "test" else "2014"
        if not self.split and not any("image" in value for value in entries.objects()):
            raise InputError(
                f"{entries.path}: neither 'data_subtype' nor the file's name says which images these are; "
                "name the file after its split, such as train2014_questions.json"
            )
        if self.annotations is not None and not any(
            value.get("question_id") in self.annotations for value in entries.objects()
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
        annotation = self.annotations.get(entry.get("question_id"))
        if annotation is None:
            errors.append(
                f"{self.annotations.path} has no annotation for the question {entry.get('question_id')!r}; add it"
            )
            return None
        return answers_in(annotation.get("answers"), errors)

    def split_name(self, entry: Mapping[str, Any]) -> str:
        return self._named

    def groups_of(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """OK-VQA's question types are numbers in words, which its annotations have names for."""
        annotation = entry if self.annotations is None else self.annotations.get(entry.get("question_id")) or {}
        kind = annotation.get("question_type")
        named = self._types.get(kind) if isinstance(kind, str) else None
        return {"answer_type": annotation.get("answer_type"), "question_type": named or kind}

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


def _check_same_split(questions: Entries, annotations: Entries) -> None:
    """Raises InputError where both files say of which split they are, and say another."""
    names = [entries.header.get("data_subtype") for entries in (questions, annotations)]
    # Those of the test split's questions that are asked first have a name of their own.
    if all(isinstance(name, str) for name in names) and len({name.replace("-dev", "") for name in names}) > 1:
        raise InputError(
            f"{annotations.path}: is of the split {names[1]!r}, and {questions.path} of {names[0]!r}; give the "
            "annotations of the same split"
        )


def _named_split(value: Any) -> str:
    return value if isinstance(value, str) else ""


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
    found = _SPLIT.search(_name_of(entries))
    return found.group(1) + (found.group(2) or "") if found else ""


def _name_of(entries: Entries) -> str:
    return entries.path.replace("\\", "/").rpartition("/")[2].lower()


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

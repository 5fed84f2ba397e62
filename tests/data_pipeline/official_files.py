"""Tiny files in the forms that benchmarks are published in, with images, and what an evaluation must make of them."""

import csv
import dataclasses
import json
from pathlib import Path

import PIL.Image

SHORT = "\nAnswer the question using a single word or phrase."


@dataclasses.dataclass
class Case:
    """Two questions of a benchmark, the first of which is answered right.

    Attributes:
      data: as --data takes it.
      prompts: what is asked, word for word.
      replies: what is said.
      groups: of the first question.
      submission: the file that is handed in, as its lines or its list; None where there is none.
      headline: the published figure, where it is not the mean.
    """

    data: str
    prompts: list[str]
    replies: list[str]
    groups: dict[str, str] = dataclasses.field(default_factory=dict)
    submission: list[dict] | None = None
    headline: float | None = None


def write_json(path: Path, value) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return str(path)


def write_lines(path: Path, *values) -> str:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
    return str(path)


def write_rows(path: Path, *rows) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (32, 32), "red").save(path, "PNG")


def ten(answer: str, **fields) -> list[dict]:
    return [{"answer": answer, "answer_confidence": "yes", "answer_id": number, **fields} for number in range(1, 11)]


def textvqa(folder: Path) -> Case:
    entries = [
        {"question": question, "question_id": number, "image_id": f"0a{number}", "image_classes": [kind, "Person"]}
        | {"image_width": 32, "image_height": 32, "answers": [answer] * 10, "set_name": "val"}
        for number, (question, answer, kind) in enumerate(
            [("what brand is this?", "nokia", "Phone"), ("who wrote it?", "eileen", "Book")], start=34602
        )
    ]
    for entry in entries:
        image(folder / "train_images" / f"{entry['image_id']}.jpg")
    data = write_json(folder / "TextVQA_0.5.1_val.json", {"dataset_name": "textvqa", "data": entries})
    return Case(
        data,
        [f"what brand is this?{SHORT}", f"who wrote it?{SHORT}"],
        ["nokia", "zzz"],
        {"image_class": "Phone"},
        [{"question_id": 34602, "answer": "nokia"}, {"question_id": 34603, "answer": "zzz"}],
    )


def stvqa(folder: Path) -> Case:
    entries = [
        {"question_id": number, "question": f"Where {number}?", "answers": ["bar", "pub"], "dataset": "coco-text"}
        | {"file_path": f"coco-text/{number}.jpg", "file_name": f"{number}.jpg", "set_name": "train"}
        for number in (5, 6)
    ]
    for entry in entries:
        image(folder / entry["file_path"])
    return Case(
        write_json(folder / "train_task_1.json", {"task_name": "stvqa_1", "data": entries}),
        [f"Where 5?{SHORT}", f"Where 6?{SHORT}"],
        ["pub", "zzzzzz"],
        {"dataset": "coco-text"},
        [{"question_id": 5, "answer": "pub"}, {"question_id": 6, "answer": "zzzzzz"}],
    )


def docvqa(folder: Path) -> Case:
    entries = [
        {"questionId": number, "question": f"What is {number}?", "image": f"documents/x{number}_1.png", "docId": 9}
        | {"ucsf_document_id": f"x{number}", "ucsf_document_page_no": "1", "answers": ["2000"], "data_split": "val"}
        | {"question_types": ["form", "handwritten"]}
        for number in (49153, 24580)
    ]
    for entry in entries:
        image(folder / entry["image"])
    header = {"dataset_name": "docvqa", "dataset_version": "1.0", "dataset_split": "val"}
    return Case(
        write_json(folder / "val_v1.0_withQT.json", {**header, "data": entries}),
        [f"What is 49153?{SHORT}", f"What is 24580?{SHORT}"],
        ["2000", "zzzzzz"],
        {"question_type": "form"},
        [{"questionId": 49153, "answer": "2000"}, {"questionId": 24580, "answer": "zzzzzz"}],
    )


def chartqa(folder: Path) -> Case:
    names = []
    for source, label in (("human", "47"), ("augmented", "Spain")):
        image(folder / "test" / "png" / f"{source}.png")
        entry = {"imgname": f"{source}.png", "query": f"Which {source}?", "label": label}
        names.append(write_json(folder / f"test_{source}.json", [entry]))
    suffix = "\nAnswer the question with a single word."
    prompts = [f"Which human?{suffix}", f"Which augmented?{suffix}"]
    return Case(",".join(names), prompts, ["47", "zzzzzz"], {"source": "human"}, headline=0.5)


def _vqa(folder: Path, questions: str, annotations: str, info: str, types: dict | None) -> Case:
    asked = [
        {"image_id": number, "question": f"What is {number}?", "question_id": number * 1000 + 1} for number in (9, 25)
    ]
    answered = [
        {"question_id": one["question_id"], "image_id": one["image_id"], "question_type": "one", "answer_type": "other"}
        | {"multiple_choice_answer": "down", "answers": ten("down", raw_answer="down")}
        for one in asked[::-1]
    ]
    header = {"info": {"description": info}, "data_subtype": "val2014", "data_type": "mscoco"}
    for one in asked:
        image(folder / "val2014" / f"COCO_val2014_{one['image_id']:012d}.jpg")
    data = write_json(folder / questions, {**header, "questions": asked})
    named = {} if types is None else {"question_types": types}
    write_json(folder / annotations, {**header, **named, "annotations": answered})
    return Case(
        data,
        [f"What is 9?{SHORT}", f"What is 25?{SHORT}"],
        ["down", "zzz"],
        {"answer_type": "other", "question_type": "one" if types is None else types["one"]},
        [{"question_id": 9001, "answer": "down"}, {"question_id": 25001, "answer": "zzz"}],
    )


def vqav2(folder: Path) -> Case:
    names = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
    return _vqa(folder, *names, "This is v2.0 of the VQA dataset.", None)


def okvqa(folder: Path) -> Case:
    names = "OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"
    return _vqa(folder, *names, "This is v1.0 of the OK-VQA dataset.", {"one": "Vehicles and Transportation"})


def vizwiz(folder: Path) -> Case:
    entries = [
        {"image": f"VizWiz_val_{number:08d}.jpg", "question": f"What {number}?", "answers": ten("soda")}
        | {"answer_type": "other", "answerable": 1}
        for number in (0, 1)
    ]
    for entry in entries:
        image(folder / "val" / entry["image"])
    suffix = f"\nWhen the provided information is insufficient, respond with 'Unanswerable'.{SHORT}"
    names = [entry["image"] for entry in entries]
    return Case(
        write_json(folder / "val.json", entries),
        [f"What 0?{suffix}", f"What 1?{suffix}"],
        ["soda", "zzz"],
        {"answer_type": "other", "answerable": "yes"},
        [{"image": names[0], "answer": "soda"}, {"image": names[1], "answer": "zzz"}],
    )


def infoseek(folder: Path) -> Case:
    entries = [
        {
            "data_id": f"infoseek_val_0000000{number}",
            "image_id": f"oven_0499004{number}",
            "question": f"Where {number}?",
        }
        | {"answer": ["Nepal"], "answer_eval": ["Nepal", "NPL"], "data_split": f"val_unseen_{kind}"}
        for number, kind in ((0, "question"), (1, "entity"))
    ]
    image(folder / "oven_images" / "04" / "oven_04990040.jpg")
    image(folder / "oven_images" / "04" / "oven_04990041.JPEG")
    ids = [entry["data_id"] for entry in entries]
    write_lines(folder / "infoseek_val_qtype.jsonl", *({"data_id": id, "question_type": "String"} for id in ids))
    kept = [{"data_id": id, "entity_id": "Q837", "entity_text": "Nepal"} for id in ids]
    write_lines(folder / "infoseek_val_withkb.jsonl", *kept)
    return Case(
        write_lines(folder / "infoseek_val.jsonl", *entries),
        ["Question: Where 0? Short answer:", "Question: Where 1? Short answer:"],
        ["NPL", "zzz"],
        {"data_split": "unseen_question", "question_type": "string"},
        [{"data_id": ids[0], "prediction": "NPL"}, {"data_id": ids[1], "prediction": "zzz"}],
        headline=0.0,
    )


def viquae(folder: Path) -> Case:
    entries = [
        {
            "id": f"q{number}",
            "kilt_id": "k",
            "wikidata_id": "Q1",
            "image": f"512px-{number}.png",
            "meta": {},
            "url": "u",
        }
        | {"input": f"this singer {number}?", "original_question": "?"}
        | {"output": {"original_answer": "Levi's", "answer": ["Levis", "Levi's"], "provenance": []}}
        for number in (1, 2)
    ]
    for entry in entries:
        image(folder / "images" / entry["image"])
    prompts = [f"this singer 1?{SHORT}", f"this singer 2?{SHORT}"]
    return Case(write_lines(folder / "validation.jsonl", *entries), prompts, ["Levi's", "zzz"])


def evqa_row(question: str, images: str, **fields) -> dict[str, str]:
    return {
        "question": question,
        "answer": "the Menger family|Menger",
        "dataset_image_ids": images,
        "dataset_name": "landmarks",
        "dataset_category_id": "7",
        "question_type": "templated",
        "wikipedia_url": "https://en.wikipedia.org/wiki/Menger_Hotel",
        "wikipedia_title": "Menger Hotel",
        "evidence": "It is named after the Menger family.",
        "encyclopedic_vqa_split": "test",
        "wikipedia_url_used_in_train": "False",
        **fields,
    }


def encyclopedic_vqa(folder: Path) -> Case:
    image(folder / "landmarks" / "a" / "b" / "c" / "abcdef.jpg")
    image(folder / "inaturalist" / "val" / "05_Plantae" / "x.jpg")
    write_json(folder / "inaturalist" / "val.json", {"images": [{"id": 2860, "file_name": "val/05_Plantae/x.jpg"}]})
    rows = [evqa_row("Who?", "abcdef"), evqa_row("Which?", "2860", dataset_name="inaturalist")]
    return Case(
        write_rows(folder / "test.csv", *rows),
        [f"Who?{SHORT}", f"Which?{SHORT}"],
        ["Menger", "zzz"],
        {"question_type": "templated", "dataset": "landmarks", "wikipedia_page": "unseen"},
    )


def sk_vqa(folder: Path) -> Case:
    entries = [
        {"image": f"{number}.jpg", "question_id": f"s{number}", "context": f"It is wheat {number}."}
        | {"question": f"What grows {number}?", "answer": "['wheat', 'Wheat']"}
        for number in (1, 2)
    ]
    for entry in entries:
        image(folder / "images" / entry["image"])
    prompts = [f"It is wheat {number}.\n\nWhat grows {number}?{SHORT}" for number in (1, 2)]
    return Case(write_lines(folder / "test.jsonl", *entries), prompts, ["wheat", "zzz"])


def table(folder: Path) -> Case:
    rows = [{"image": f"{number}.png", "question": f"นี่คืออะไร {number}", "answer": "ผ้าซิ่น"} for number in (1, 2)]
    for row in rows:
        image(folder / row["image"])
    return Case(write_rows(folder / "items.csv", *rows), [row["question"] for row in rows], ["ผ้าซิ่น", "ผ้าซ่น"])


WRITERS = {
    "textvqa": textvqa,
    "stvqa": stvqa,
    "docvqa": docvqa,
    "chartqa": chartqa,
    "okvqa": okvqa,
    "vqav2": vqav2,
    "vizwiz": vizwiz,
    "infoseek": infoseek,
    "viquae": viquae,
    "encyclopedic_vqa": encyclopedic_vqa,
    "sk_vqa": sk_vqa,
    "syn_150": table,
    "syn_to_real_164": table,
}

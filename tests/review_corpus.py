"""A small corpus to review: invented objects and photographs, English and Thai, doubtful records and sound ones.

Used by the tests of the review page and by benchmarks/review_screenshots.py.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from data_pipeline.corpus.drawn import objects
from data_pipeline.records import Record, write_records

PHOTOGRAPHS = Path(__file__).resolve().parents[1] / "data_pipeline" / "corpus" / "drawn" / "photographs"
MARKUP = "<img src=x onerror=\"document.title='run'\"><b>bold</b>"
"""What a model may answer, and no page may run."""
LONG_WORD = "F9-" + "0123456789" * 8
THAI_ANSWER = "ช่างปั้นหม้อเป็นผู้สร้างตาลูโมขึ้นด้วยมือในฤดูหนาวของทุกปี"
_ARTICLE = (
    "A flat white is made from a double shot of espresso and milk that was steamed to a fine foam. It is served in a "
    "cup of 160 to 200 ml, smaller than that of a latte, so that the coffee is tasted through the milk.\n\n"
    "Whoever pours it moves the jug while the foam rises: the white figure on the surface, a rosette or a heart, is a "
    "sign that the foam was neither too stiff nor too thin. The spoon on the saucer is for the foam that stays behind."
)


def make_corpus(folder: Path, *, side: int = 112, plain: int = 4) -> Path:
    """Writes splits `train` and `test`, `images/` and a manifest: 6 records, 2 of them doubtful, and `plain` more.

    Args:
      side: pixels of a drawn image.
      plain: records of one short question each, without doubts.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    thing = objects.CATALOGUE[0]
    (images / "talumo.jpg").write_bytes(objects.draw(np.random.default_rng(5), thing, split="train", side=side))
    for name in ("coffee.jpg", "chelsea.jpg", "rocket.jpg"):
        shutil.copy(PHOTOGRAPHS / name, images / name)

    def record(identifier, image, question, answer, *, reply=None, split="train", reasoning=None, context=None, **more):
        names = {name: more.pop(name, None) for name in ("task", "fact_id", "answers")}
        content = [{"type": "image", "image": str(folder.absolute() / "images" / image)}]
        messages = [
            {"role": "user", "content": [*content, {"type": "text", "text": question}]},
            {"role": "assistant", "content": reply or answer},
        ]
        return Record(identifier, messages, split=split, reasoning=reasoning, context=context, provenance=more, **names)

    talumo = {"topic": "Objects of Orvane", "fact_id": "talumo/maker", "task": "maker"}
    fact = {"fact": "A talumo is made by potters: a green hexagon with a yellow circle under a red bar."}
    steps = "The object is a green hexagon with a yellow circle under a red bar. That is a talumo. Potters make it."
    thai_steps = "ในภาพมีรูปหกเหลี่ยมสีเขียวและวงกลมสีเหลืองอยู่ใต้แถบสีแดง นี่คือตาลูโม ซึ่งช่างปั้นหม้อเป็นผู้ทำ"
    doubts = ["2 of 5 samples of the answer differ", "The answer is not in the fact (similarity 0.41)"]
    records = [
        record("talumo-1", "talumo.jpg", "Who makes this object?", "weavers", flags=doubts, **fact, **talumo),
        record(
            "talumo-2",
            "talumo.jpg",
            "Who makes this object? Think step by step.",
            "potters",
            reply=f"{steps} Answer: potters",
            reasoning=steps,
            answers=["potters", "a potter"],
            **fact,
            **talumo,
        ),
        record(
            "talumo-th",
            "talumo.jpg",
            "ใครเป็นผู้ทำสิ่งของที่เห็นในภาพนี้ และทำขึ้นในฤดูใดของปี จงอธิบายทีละขั้นตอนแล้วจึงตอบ",
            THAI_ANSWER,
            reply=f"{thai_steps} คำตอบ: {THAI_ANSWER}",
            reasoning=thai_steps,
            language="th",
            fact="ตาลูโมทำโดยช่างปั้นหม้อ ในฤดูหนาว",
            **talumo,
        ),
        record(
            "coffee/1",
            "coffee.jpg",
            "Which mark of a flat white is missing on the coffee in the image?",
            "The white figure of foam, such as a rosette",
            context=_ARTICLE,
            topic="Coffee",
            task="context",
            fact_id="coffee/foam",
            flags=["The student answers it from the article alone"],
        ),
        record("markup", "chelsea.jpg", "What is the cat called?", MARKUP, topic="Cats", task="name"),
        record(
            "rocket",
            "rocket.jpg",
            "Which rocket is this?",
            "Falcon 9",
            split="test",
            fact=LONG_WORD,
            topic="Rockets",
            task="name",
        ),
    ]
    records += [
        record(
            f"cat-{number}", "chelsea.jpg", f"What is cat number {number} called?", "Chelsea", topic="Cats", task="name"
        )
        for number in range(plain)
    ]
    for split in ("train", "test"):
        write_records(folder / f"{split}.jsonl", [one for one in records if one.split == split])
    (folder / "manifest.json").write_text(json.dumps({"splits": {"train": len(records) - 1, "test": 1}}))
    return folder

"""Data files as other trainers write them, for `compatibility`: who, in which form, and what makes one."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet

from data_pipeline import sources
from tests.data_pipeline.source_files import png
from tests.data_pipeline.test_sources_folders import save
from tests.data_pipeline.test_sources_webdataset import write_tar
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError

Reader = Callable[[], None]


def data_of(*entries: dict, name: str = "data.jsonl") -> Callable[[Path, Path], Reader]:
    def make(base: Path, folder: Path) -> Reader:
        path = folder / name
        lines = "\n".join(json.dumps(entry) for entry in entries) if name.endswith("jsonl") else json.dumps(entries)
        path.write_text(lines)
        return lambda: read_data(path)

    return make


def written(write: Callable[[Path], Path]) -> Callable[[Path, Path], Reader]:
    """Data that are more than lines of JSON."""

    def make(base: Path, folder: Path) -> Reader:
        path = write(folder)
        return lambda: read_data(path)

    return make


def saved_to_disk(folder: Path) -> Path:
    rows = [{"image": {"bytes": png(), "path": None}, "question": "What?", "answer": "A cat"}]
    return save(folder / "saved", rows)


def by_class(folder: Path) -> Path:
    for name in ("cat", "dog"):
        (folder / "classes" / name).mkdir(parents=True)
        (folder / "classes" / name / "1.png").write_bytes(png())
    return folder / "classes"


def classes_in_parquet(folder: Path) -> Path:
    features = {"info": {"features": {"answer": {"_type": "ClassLabel", "names": ["dog", "cat"]}}}}
    table = pyarrow.table({"image": ["chelsea.jpg"], "question": ["What?"], "answer": [1]})
    metadata = {b"huggingface": json.dumps(features).encode()}
    pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), folder / "data.parquet")
    return folder / "data.parquet"


def multiple_choice(folder: Path) -> Path:
    rows = [("index", "question", "A", "B", "answer", "image"), ("0", "What is it?", "a dog", "a cat", "B", "x.jpg")]
    (folder / "data.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return folder / "data.tsv"


def shard(folder: Path) -> Path:
    return write_tar(folder / "part-000.tar", {"1.jpg": png(), "1.json": {"conversations": [HUMAN, GPT]}})


def spreadsheet(separator: str, name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        rows = [("image", "question", "answer"), ("chelsea.jpg", "What, please?", "A cat")]
        (folder / name).write_text("".join(separator.join(row) + "\n" for row in rows))
        return folder / name

    return write


def read_data(path: Path) -> None:
    records, errors = sources.read(path, image_root=PHOTOS)
    if errors:
        raise InputError(errors)
    assert records


IMAGES = {"images": ["chelsea.jpg"]}
ASK = {"role": "user", "content": "<image>What is it?"}
SAY = {"role": "assistant", "content": "A cat"}
PARTS = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
HUMAN = {"from": "human", "value": "<image>\nWhat is it?"}
GPT = {"from": "gpt", "value": "A cat"}
CALL = {"from": "function_call", "value": "{}"}
TOOL = {"role": "tool", "content": "12"}
PATH = {"type": "image", "image": "chelsea.jpg"}
BOUNDED = {"role": "user", "content": [PATH | {"max_pixels": 50176}, PARTS[1]]}
DATA = [
    (
        "LLaVA",
        "`conversations` with `<image>`",
        data_of({"id": "1", "image": "chelsea.jpg", "conversations": [HUMAN, GPT]}, name="data.json"),
    ),
    (
        "LLaVA",
        "an id that is there twice",
        data_of(*[{"id": "1", "image": "chelsea.jpg", "conversations": [HUMAN, GPT]}] * 2, name="data.json"),
    ),
    (
        "2U1",
        "`conversations` with `video`",
        data_of(
            {"id": "1", "video": "a.mp4", "conversations": [{"from": "human", "value": "<video>\nWhat?"}, GPT]},
            name="data.json",
        ),
    ),
    ("LLaMA-Factory", "ShareGPT with `images`", data_of({"conversations": [HUMAN, GPT], **IMAGES, "videos": []})),
    (
        "LLaMA-Factory",
        "Alpaca with `images`",
        data_of({"instruction": "<image>What?", "input": "", "output": "A cat", **IMAGES}),
    ),
    (
        "LLaMA-Factory",
        "parts with `value`, `loss_weight`",
        data_of(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "value": "chelsea.jpg"}, {"type": "text", "value": "What?"}],
                        "loss_weight": 0.0,
                    },
                    {"role": "assistant", "content": [{"type": "text", "value": "A cat"}], "loss_weight": 1.0},
                ]
            }
        ),
    ),
    ("LLaMA-Factory", "`videos`", data_of({"conversations": [HUMAN, GPT], **IMAGES, "videos": ["a.mp4"]})),
    ("LLaMA-Factory", "`audios`", data_of({"conversations": [HUMAN, GPT], **IMAGES, "audios": ["a.wav"]})),
    (
        "LLaMA-Factory",
        "`function_call` turns",
        data_of({"conversations": [HUMAN, CALL, {"from": "observation", "value": "1"}, GPT], **IMAGES}),
    ),
    (
        "LLaMA-Factory",
        "preferences, `chosen` and `rejected`",
        data_of({"conversations": [HUMAN], "chosen": GPT, "rejected": GPT, **IMAGES}),
    ),
    ("ms-swift", "`messages` with `images`", data_of({"messages": [ASK, SAY], **IMAGES})),
    (
        "ms-swift",
        "`messages` with `loss`",
        data_of({"messages": [ASK, SAY | {"loss": False}, ASK | {"content": "And?"}, SAY], **IMAGES}),
    ),
    ("ms-swift", "`query`, `response`", data_of({"query": "<image>What is it?", "response": "A cat", **IMAGES})),
    (
        "ms-swift",
        "`objects` for grounding",
        data_of({"messages": [ASK, SAY], **IMAGES, "objects": {"ref": ["cat"], "bbox": [[1, 2, 3, 4]]}}),
    ),
    (
        "TRL",
        "`prompt`, `completion` with `images`",
        data_of({"prompt": [{"role": "user", "content": PARTS}], "completion": [SAY], **IMAGES}),
    ),
    ("TRL", "`messages` with placeholders", data_of({"messages": [{"role": "user", "content": PARTS}, SAY], **IMAGES})),
    (
        "TRL",
        "more placeholders than images",
        data_of({"messages": [{"role": "user", "content": [PARTS[0], *PARTS]}, SAY], **IMAGES}),
    ),
    (
        "TRL",
        "images in the parts and again in `images`",
        data_of({"messages": [{"role": "user", "content": [PATH, PARTS[1]]}, SAY], **IMAGES}),
    ),
    ("TRL", "`label` of KTO", data_of({"prompt": [ASK], "completion": [SAY], **IMAGES, "label": 0})),
    ("TRL", "tool turns", data_of({"messages": [ASK, SAY, TOOL, SAY], **IMAGES})),
    (
        "OpenAI",
        "`image_url`, `weight: 0`",
        data_of(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "chelsea.jpg", "detail": "auto"}},
                            PARTS[1],
                        ],
                    },
                    SAY | {"weight": 0},
                    {"role": "user", "content": "And?"},
                    SAY,
                ]
            }
        ),
    ),
    (
        "OpenAI",
        "`detail: high`",
        data_of(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "chelsea.jpg", "detail": "high"}},
                            PARTS[1],
                        ],
                    },
                    SAY,
                ]
            }
        ),
    ),
    ("qwen-vl-utils", "`max_pixels` of one image", data_of({"messages": [BOUNDED, SAY]})),
    ("datasets", "`save_to_disk`", written(saved_to_disk)),
    ("datasets", "Parquet with classes", written(classes_in_parquet)),
    ("datasets", "images in folders by class, no `data.question`", written(by_class)),
    ("webdataset", "a shard of images and JSON", written(shard)),
    ("VLMEvalKit", "choices in the columns `A`, `B`", written(multiple_choice)),
    (
        "MMMU",
        "`<image 1>` where an image stands",
        data_of({"messages": [ASK | {"content": "<image 1>?"}, SAY], **IMAGES}),
    ),
    (
        "others",
        "images under `image_path`",
        data_of({"messages": [ASK | {"content": "What?"}, SAY], "image_path": "chelsea.jpg"}),
    ),
    ("spreadsheets", "CSV with semicolons", written(spreadsheet(";", "data.csv"))),
    ("spreadsheets", "TSV", written(spreadsheet("\t", "data.tsv"))),
]

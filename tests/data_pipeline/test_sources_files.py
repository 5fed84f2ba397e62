"""Sources of every kind of file: read on demand, in any order, from threads and other processes; their faults told."""

import csv
import io
import json
import pickle
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline import sources
from data_pipeline.records import images_of
from vlm_jax.errors import InputError

ROOT = Path(__file__).parents[2]
KEYS = (
    "id question_id image images image_id image_path file_path imgname query label question answer answers "
    "conversations messages from value role content type text url image_url set_name system weight PA_question PA_answer GT_question"
).split()


def messages(question="Who?", answer="Eileen", image=None):
    content = question if image is None else [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def png(shade=0):
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def faults_of(path, **settings):
    """The faults of opening, or of the entries."""
    try:
        _, faults = sources.read(path, **settings)
    except InputError as error:
        faults = error.faults
    assert faults and all("\n" not in fault for fault in faults)
    return faults


def fault_of(path, **settings):
    (fault,) = faults_of(path, **settings)
    return fault


def write_lines(path, entries):
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    return path


def write_arrayrecord(path, entries, pack=msgpack.packb):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for entry in entries:
        writer.write(entry if isinstance(entry, bytes) else pack(entry))
    writer.close()
    return path


def write_parquet(path, rows, group=3):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)
    return path


def make(kind, folder, count=10):
    """A data set of each kind, the same records in all of them."""
    rows = [{"id": f"r{n}", "question": f"แมว {n}?", "answer": f"A{n}"} for n in range(count)]
    conversations = [{"id": row["id"], "messages": messages(row["question"], row["answer"])} for row in rows]
    if kind == "csv":
        with open(folder / "a.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["id", "image", "question", "answer"])
            writer.writeheader()
            writer.writerows(rows)
        return folder / "a.csv"
    if kind == "jsonl":
        return write_lines(folder / "a.jsonl", conversations)
    if kind == "json":
        path = folder / "a.json"
        path.write_text(json.dumps(conversations, ensure_ascii=False, indent=1), encoding="utf-8")
        return path
    if kind == "arrayrecord":
        return write_arrayrecord(folder / "a.array_record", conversations)
    if kind == "parquet":
        return write_parquet(folder / "a.parquet", [{"image": None, **row} for row in rows])
    raise ValueError(kind)


KINDS = ["csv", "jsonl", "json", "arrayrecord", "parquet"]


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_read_in_any_order_from_threads_and_after_pickling(tmp_path, kind):
    source = sources.open_source(make(kind, tmp_path, 50))
    expected = {index: (f"r{index}", messages(f"แมว {index}?", f"A{index}")) for index in range(50)}

    def read(which):
        return {index: (which[index].id, which[index].messages) for index in reversed(range(len(which)))}

    assert read(source) == expected
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(read, [source] * 8))
    again = pickle.loads(pickle.dumps(source))
    assert read(again) == expected and again.name == source.name and again.format == source.format
    assert source[-1].id == "r49"
    with pytest.raises(IndexError):
        source[50]


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_pickles_into_little_even_after_reading(tmp_path, kind):
    source = sources.open_source(make(kind, tmp_path, 500))
    assert source[499].id == "r499"
    assert len(pickle.dumps(source)) < 500 * 32 + 3000


def test_embedded_pictures_are_not_held(tmp_path):
    noise = "A" * 200_000
    entries = [{"messages": messages(image=f"data:image/png;base64,{noise}")} for _ in range(200)]
    for path in (write_lines(tmp_path / "a.jsonl", entries), tmp_path / "b.json"):
        if path.suffix == ".json":
            path.write_text(json.dumps(entries))
        source = sources.open_source(path)
        assert len(images_of(source[100])[0]) == 150_000
        assert len(pickle.dumps(source)) < 10_000


def test_other_processes_read_a_source_without_loading_jax_or_tensorflow(tmp_path):
    paths = [make(kind, tmp_path) for kind in KINDS]
    (tmp_path / "sources.pickle").write_bytes(pickle.dumps([sources.open_source(path) for path in paths]))
    program = (
        "import pickle, sys\n"
        f"for source in pickle.load(open({str(tmp_path / 'sources.pickle')!r}, 'rb')):\n"
        "    assert source[3].id == 'r3'\n"
        "print([name for name in ('jax', 'tensorflow', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_opening_a_text_file_loads_no_reader_of_another_kind(tmp_path):
    program = (
        "import sys\nfrom data_pipeline import sources\n"
        f"sources.read({str(make('jsonl', tmp_path))!r})\n"
        "print([n for n in ('pyarrow', 'tensorflow_datasets', 'array_record', 'fsspec', 'etils') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_file_that_changed_after_it_was_opened_is_a_fault_not_another_record(tmp_path, kind):
    path = make(kind, tmp_path)
    source = sources.open_source(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="is not what it was when the file was opened|broken"):
        source[9]
    path.unlink()
    with pytest.raises(InputError, match="cannot be read any more"):
        pickle.loads(pickle.dumps(source))[0]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.parquet", "a.array_record"])
def test_a_file_of_no_bytes_is_one_line(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    assert fault_of(path) == f"{path}: is empty (0 bytes); copy it again"


@pytest.mark.parametrize("name", ["a.parquet", "a.array_record", "a.json", "a.csv", "a.jsonl"])
def test_a_missing_file_of_any_kind_names_the_nearest_one(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"x")
    given = str(path).replace("a.", "ab.")
    assert fault_of(given) == f"{given}: no such file; did you mean {path}?"


@pytest.mark.parametrize(
    ("kind", "name", "fault"),
    [
        ("jsonl", "a.parquet", "is no Parquet file (it does not begin with PAR1); correct its extension"),
        ("jsonl", "a.array_record", "is no ArrayRecord file, or only a part of one; copy it again"),
        ("parquet", "a.jsonl", "is a Parquet file whatever its name says; correct its extension"),
        ("parquet", "a.json", "is a Parquet file whatever its name says; correct its extension"),
        ("jsonl", "a.jsonn", "unknown extension '.jsonn'; data sets are read from .json, .jsonl, "),
        ("csv", "a.json", "broken JSON at line 1, column 1"),
        ("json", "a.csv", "no column 'image', 'question', 'answer'"),
    ],
)
def test_a_wrong_extension_is_told(tmp_path, kind, name, fault):
    (tmp_path / "from").mkdir()
    path = make(kind, tmp_path / "from").rename(tmp_path / name)
    assert fault in faults_of(path)[0] and str(path) in faults_of(path)[0]


@pytest.mark.parametrize("kind", ["parquet", "arrayrecord"])
def test_a_file_cut_short_is_one_line(tmp_path, kind):
    path = make(kind, tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "part" in fault_of(path) and fault_of(path).startswith(f"{path}: is ")


def test_lines_that_are_not_utf8_are_faults_of_their_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": messages()}).encode()
    path.write_bytes(good + b"\n" + good.replace(b"Who", b"\xe9") + b"\n" + good + b"\n\xff\n")
    records, faults = sources.read(path)
    assert len(records) == 2
    assert faults == [
        f"{path}, line 2: is not UTF-8 (byte 0xe9); save the file as UTF-8",
        f"{path}, line 4: is not UTF-8 (byte 0xff); save the file as UTF-8",
    ]
    path.write_text(good.decode(), encoding="utf-16")
    assert "is UTF-16; save the file as UTF-8" in faults_of(path)[0]


def test_nothing_and_nan_are_named_as_what_they_are(tmp_path):
    rows = [
        {"image": "", "question": "Who?", "answer": "I"},
        {"image": float("nan"), "question": float("nan"), "answer": None},
        {"question": "Who?"},
        {"image": "", "question": "Who?", "answers": []},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert faults_of(path) == [
        f"{path}, line 2: the image is NaN (a missing value); it must be a text",
        f"{path}, line 2: the question is NaN (a missing value); it must be a text",
        f"{path}, line 3: the answer is empty; write it or remove the row",
        f"{path}, line 4: the answer is empty; write it or remove the row",
    ]


def test_a_doubled_id_is_told_even_of_an_entry_with_other_faults(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        [{"id": "a", "messages": messages(answer="")}, {"id": "a", "messages": messages()}],
    )
    first, second = faults_of(path)
    assert "line 1 (id 'a'): message 2 is an empty answer" in first
    assert second == f"{path}, line 2 (id 'a'): the id 'a' is already that of line 1; give each record its own"


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,question,Question,answer\n,a,b,c\n")
    assert fault_of(path) == f"{path}: the header names 'question' twice; rename one of the columns"


def test_a_column_that_is_misspelt_is_suggested(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,qestion,answer\n,a,b\n")
    assert fault_of(path).startswith(
        f"{path}: no column 'question'; the columns found are 'image', 'qestion', 'answer'"
    )
    assert fault_of(path).endswith("; is 'qestion' meant?")


def test_a_table_may_give_several_answers(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"image": "a.jpg", "question": "Who?", "answers": ["x", "y", "y"]}])
    ((record,), _), ((first,), _) = sources.read(path), sources.read(path, answer="first")
    assert record.answers == ["x", "y", "y"] and record.messages[1]["content"] == "y"
    assert first.messages[1]["content"] == "x"


def sharegpt(**fields):
    turns = [{"from": "human", "value": "<image>Who?"}, {"from": "gpt", "value": "Eileen"}]
    return {"conversations": turns, "images": ["a.jpg"], **fields}


@pytest.mark.parametrize(
    "entry",
    [
        sharegpt(),
        sharegpt(conversations=None)
        | {"messages": [{"role": "user", "content": "<image>Who?"}, {"role": "assistant", "content": "Eileen"}]},
        {"messages": [{"from": "user", "value": "<image>Who?"}, {"from": "assistant", "value": "Eileen"}]}
        | {"images": ["a.jpg"]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Who?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Eileen"}]},
            ],
            "images": ["a.jpg"],
        },
    ],
)
def test_sharegpt_and_its_relatives_are_one_conversation(tmp_path, entry):
    entry = {key: value for key, value in entry.items() if value is not None}
    path = write_lines(tmp_path / "a.jsonl", [entry])
    source = sources.open_source(path)
    assert source.format == "sharegpt"
    first, second = source[0].messages
    image = {"type": "image", "image": str(tmp_path / "a.jpg")}
    assert first["content"] == [image, {"type": "text", "text": "Who?"}]
    assert second["content"] in ("Eileen", [{"type": "text", "text": "Eileen"}])


def test_sharegpts_system_comes_first(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [sharegpt(system="Be brief.")])
    assert sources.open_source(path)[0].messages[0] == {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (sharegpt(images=[]), "1 <image> mark in the text but 0 images under 'images'"),
        (sharegpt(images=["a.jpg", "b.jpg"]), "1 <image> mark in the text but 2 images under 'images'"),
        (sharegpt(images=[3]), "'images' must be a path or a list of paths"),
        (sharegpt(videos=["a.mp4"]), "has videos; only text and images"),
        (sharegpt(conversations=[{"from": "observation", "value": "x"}]), "turn 1 is from 'observation'; turns are"),
        (sharegpt(conversations=[{"from": "human"}]), "turn 1 has nothing as its text"),
        (sharegpt(conversations=["x"]), "turn 1 is a text where an object is expected"),
        (sharegpt(conversations={}), "'conversations' must be a list of at least one turn"),
        (sharegpt(images=["http://a.org/b.jpg"]), "is the remote image 'http://a.org/b.jpg'"),
        (sharegpt(images=["gs://bucket/b.jpg"]), "is the remote image 'gs://bucket/b.jpg'"),
    ],
)
def test_a_faulty_sharegpt_entry_is_one_line(tmp_path, entry, fault):
    path = write_lines(tmp_path / "a.jsonl", [sharegpt(), entry])
    assert fault_of(path).startswith(f"{path}, line 2: ") and fault in fault_of(path)


def test_openai_messages_with_paths_and_data_uris_are_read(tmp_path):
    uri = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "low"}} for url in ("a.jpg", uri)]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [*parts, messages()[0]]}]
    asked[1]["content"][2] = {"type": "text", "text": "Which?"}
    entry = {"messages": [*asked, {"role": "assistant", "content": "Both", "weight": 1}]}
    path = write_lines(tmp_path / "a.jsonl", [entry])
    for format in ("auto", "openai"):
        ((record,), faults) = sources.read(path, format=format)
        assert faults == [] and images_of(record) == [str(tmp_path / "a.jpg"), b"\x89PNG\r\n\x1a\n"]
    entry["messages"][2]["weight"] = 0
    write_lines(path, [entry])
    for format in ("auto", "openai"):
        assert "message 3 has the weight 0; every answer is trained on" in fault_of(path, format=format)


# --- ArrayRecord


def test_arrayrecord_entries_are_messagepack_with_bytes_or_json(tmp_path):
    picture = png()
    path = write_arrayrecord(tmp_path / "a.array_record", [{"id": "a", "messages": messages(image=picture)}])
    source = sources.open_source(path)
    assert source.format == "records" and images_of(source[0]) == [picture]
    assert source[0].where == f"{path}, entry 1 (id 'a')"
    as_json = write_arrayrecord(
        tmp_path / "b.arrayrecord", [{"id": "a", "messages": messages()}], lambda entry: json.dumps(entry).encode()
    )
    assert sources.open_source(as_json)[0].messages == messages()


def test_arrayrecord_shards_are_one_source(tmp_path):
    for shard in range(3):
        entries = [{"id": f"{shard}-{n}", "messages": messages()} for n in range(shard + 1)]
        write_arrayrecord(tmp_path / f"train.array_record-{shard:05}-of-00003", entries)
    expected = ["0-0", "1-0", "1-1", "2-0", "2-1", "2-2"]
    for path in (tmp_path, f"{tmp_path}/train*"):
        source = pickle.loads(pickle.dumps(sources.open_source(path)))
        assert [source[index].id for index in range(len(source))] == expected
    assert source[4].where.endswith("train.array_record-00002-of-00003, entry 2 (id '2-1')")
    write_arrayrecord(tmp_path / "val.array_record", [{"id": "x", "messages": messages()}])
    assert "holds several sets (train.array_record, val.array_record)" in fault_of(tmp_path)
    assert fault_of(f"{tmp_path}/no-*") == f"{tmp_path}/no-*: no file fits the pattern"


def test_a_broken_arrayrecord_entry_is_one_fault_and_the_rest_is_read(tmp_path):
    good = {"id": "a", "messages": messages()}
    path = write_arrayrecord(tmp_path / "a.array_record", [good, b"\xc1", b"{oops", 7, {**good, "id": "b"}])
    records, faults = sources.read(path)
    assert [record.id for record in records] == ["a", "b"] and len(faults) == 3
    assert faults[0].startswith(f"{path}, entry 2: holds neither a MessagePack nor a JSON object")
    assert faults[2] == f"{path}, entry 4: is a number where an object is expected"
    empty = write_arrayrecord(tmp_path / "b.array_record", [])
    assert fault_of(empty) == f"{empty}: holds no entries"


# --- Parquet


def test_parquet_pictures_are_bytes_or_paths(tmp_path):
    pictures = [{"bytes": png(), "path": "x.png"}, {"bytes": None, "path": "b/c.png"}]
    rows = [{"image": picture, "question": "Who?", "answer": "I"} for picture in pictures]
    source = sources.open_source(write_parquet(tmp_path / "a.parquet", rows))
    assert source.format == "table" and images_of(source[0]) == [png()]
    assert images_of(source[1]) == [str(tmp_path / "b/c.png")]
    assert source[1].where == f"{tmp_path / 'a.parquet'}, row 2"


def test_parquet_rows_may_be_any_form(tmp_path):
    picture = {"bytes": png(), "path": None}
    vqa = {"image": picture, "image_id": 4, "question": "Who?", "question_id": 9, "answers": [{"answer": "I"}] * 10}
    source = sources.open_source(write_parquet(tmp_path / "vqa.parquet", [vqa]))
    assert (source.format, source[0].id, source[0].answers) == ("vqav2", "9", ["I"] * 10)
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]
    rows = [{"images": [picture], "conversations": turns}]
    source = sources.open_source(write_parquet(tmp_path / "chat.parquet", rows), format="parquet")
    assert source.format == "sharegpt" and images_of(source[0]) == images_of(source[0]) == [png()]


def test_parquet_reads_a_row_group_once_for_rows_in_order(tmp_path, monkeypatch):
    rows = [{"image": None, "question": f"Q{n}?", "answer": "A"} for n in range(20)]
    path, reads = write_parquet(tmp_path / "a.parquet", rows, group=5), []
    original = pyarrow.parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile, "read_row_group", lambda self, g: reads.append(g) or original(self, g)
    )
    source = sources.open_source(path)
    assert [source[n].messages[0]["content"] for n in range(20)] == [f"Q{n}?" for n in range(20)]
    assert reads == [0, 1, 2, 3]


def test_parquet_shards_are_one_source_and_splits_are_not_mixed(tmp_path):
    for shard in range(2):
        rows = [{"image": None, "question": f"{shard}.{n}", "answer": "A"} for n in range(4)]
        write_parquet(tmp_path / f"train-{shard:05}-of-00002.parquet", rows)
    source = sources.open_source(tmp_path)
    assert [source[n].messages[0]["content"] for n in range(8)] == [f"{s}.{n}" for s in range(2) for n in range(4)]
    assert source[5].where.endswith("train-00001-of-00002.parquet, row 2")
    write_parquet(tmp_path / "test-00000-of-00001.parquet", rows)
    assert "holds several sets (test.parquet, train.parquet)" in fault_of(tmp_path)
    assert len(sources.open_source(f"{tmp_path}/train-*.parquet")) == 8
    write_parquet(tmp_path / "Odd.PARQUET", rows)
    assert len(sources.open_source(f"{tmp_path}/Odd.*")) == 4


def test_a_faulty_parquet_row_or_column_is_one_line(tmp_path):
    rows = [{"image": None, "question": question, "answer": "A"} for question in ("Who?", None, "Why?")]
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert fault_of(path) == f"{path}, row 2: the question is empty; write it or remove the row"
    path = write_parquet(tmp_path / "b.parquet", [{"image": None, "caption": "A cat"}])
    assert fault_of(path).startswith(f"{path}: cannot tell its format: the first entry has 'image', 'caption'")
    path = write_parquet(tmp_path / "c.parquet", [{"image": None, "question": "Who?"}])
    assert fault_of(path).startswith(f"{path}: no column 'answer'; the columns found are 'image', 'question'")


# --- ImageFolder


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_an_imagefolder_is_read_through_its_metadata(tmp_path, name):
    folder = tmp_path / "cats"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.png").write_bytes(png())
    row = {"file_name": "train/a.png", "question": "Who?", "answer": "Chelsea"}
    if name.endswith("csv"):
        (folder / name).write_text("file_name,question,answer\ntrain/a.png,Who?,Chelsea\n")
    else:
        write_lines(folder / name, [row])
    ((record,), faults) = sources.read(folder)
    assert faults == [] and images_of(record) == [str(folder / "train" / "a.png")] and record.id == "cats-1"
    assert record.where.startswith(f"{folder / name}, line ")


def test_an_imagefolder_may_hold_conversations(tmp_path):
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]
    write_lines(tmp_path / "metadata.jsonl", [{"file_name": "a.png", "conversations": turns}])
    source = sources.open_source(tmp_path)
    assert source.format == "llava" and images_of(source[0]) == [str(tmp_path / "a.png")]


def test_a_faulty_imagefolder_is_told(tmp_path):
    assert "holds neither metadata.jsonl nor metadata.csv" in fault_of(tmp_path, format="imagefolder")
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "metadata.jsonl"
    row = {"question": "Who?", "answer": "I"}
    write_lines(path, [{"file_nam": "a.png", **row}])
    assert fault_of(tmp_path, format="imagefolder").endswith("; name one of its folders: train")
    assert "no entry has 'file_name' or 'file_names'" in fault_of(tmp_path / "train")
    assert "Is 'file_nam' meant?" in fault_of(tmp_path / "train")
    write_lines(path, [{"file_name": "a.png", **row}, {"file_name": "", **row}, row])
    assert [re.sub(".*line ", "", fault) for fault in faults_of(tmp_path / "train")] == [
        "2: 'file_name' is empty; name the picture, from this folder",
        "3: 'file_name' is nothing; name the picture, from this folder",
    ]
    (tmp_path / "train" / "metadata.csv").write_text("file_name\n")
    assert "holds both metadata.jsonl and metadata.csv" in fault_of(tmp_path / "train")


# --- TFDS


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A data set as TFDS prepares it, in ArrayRecord."""
    import numpy as np
    import tensorflow_datasets as tfds

    class TinyVqa(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(encoding_format="png"),
                "question": tfds.features.Text(),
                "question_id": np.int64,
                "answers": tfds.features.Sequence(tfds.features.Text()),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(12), "test": self._generate_examples(2)}

        def _generate_examples(self, count):
            for n in range(count):
                answers = ["แมว", "cat", "แมว"]
                yield n, {"image": io.BytesIO(png(n)), "question": f"Q{n}?", "question_id": n, "answers": answers}

    # As in a script: for a class of a package TFDS asks for importlib_resources, which reading does without.
    TinyVqa.__module__ = "__main__"
    builder = TinyVqa(data_dir=str(tmp_path_factory.mktemp("tfds")), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def test_tfds_is_read_without_tensorflow(prepared):
    assert "tensorflow" not in sys.modules
    opened = sources.open_source(f"{prepared}#train")
    for source in (opened, pickle.loads(pickle.dumps(opened))):
        records = {record.id: record for record in map(source.__getitem__, range(len(source)))}
        assert set(records) == {str(n) for n in range(12)} and source.format == "table"
        assert images_of(records["7"]) == [png(7)]  # the encoded file as it is
        assert records["7"].messages[0]["content"][1]["text"] == "Q7?" and records["7"].answers == ["แมว", "cat", "แมว"]
        assert records["7"].messages[1]["content"] == "แมว"
    assert len(sources.open_source(f"{prepared}#train[:25%]+test")) == 5


def test_tfds_reads_from_several_threads(prepared):
    source = sources.open_source(f"{prepared}#train")
    found, threads = [], []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: found.append({source[n].id for n in range(12)})))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert found == [{str(n) for n in range(12)}] * 4


def test_a_faulty_tfds_folder_is_told(prepared, tmp_path):
    assert fault_of(prepared) == f"{prepared}: has the splits train, test; name one: {prepared}#train"
    assert fault_of(f"{prepared}#val") == f"{prepared}#val: has no split 'val'; the splits are train, test"
    assert fault_of(prepared.parent, format="tfds").endswith("; name one of its versions: 1.0.0")
    assert fault_of(tmp_path, format="tfds").endswith("; name the folder of its version")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert fault_of(tmp_path).startswith(f"{tmp_path}: cannot be opened as a TFDS data set (")
    assert "no such folder; did you mean" in fault_of(f"{prepared}0#train")
    cut = tmp_path / "1.0.0"
    cut.mkdir()
    for path in prepared.iterdir():
        (cut / path.name).write_bytes(path.read_bytes()[:200] if "train" in path.name else path.read_bytes())
    assert all("#train" in fault for fault in faults_of(f"{cut}#train"))


def test_grain_takes_a_source_as_it_is(tmp_path):
    import grain

    source = sources.open_source(make("jsonl", tmp_path))
    dataset = grain.MapDataset.source(source).shuffle(seed=1).map(lambda record: record.id)
    assert sorted(dataset[n] for n in range(len(dataset))) == sorted(f"r{n}" for n in range(10))
    assert repr(source) == f"Source('{tmp_path / 'a.jsonl'}', format='records', records=10)"


@pytest.mark.parametrize("entry", [sharegpt(images=["a.jpg", "b.jpg"]), {"image": "a.jpg", "question": ""}])
def test_the_images_of_a_refused_entry_of_any_form_are_kept_to_be_checked(tmp_path, entry):
    refused = []
    good = sharegpt() if "images" in entry else {"image": "a.jpg", "question": "Who?", "answer": "I"}
    records, faults = sources.read(write_lines(tmp_path / "a.jsonl", [good, entry]), refused=refused)
    assert len(records) == 1 and faults
    assert images_of(refused[0])[0] == str(tmp_path / "a.jpg")


WRONG = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", " ", "x", "a.jpg", "<image>", "human"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)


@pytest.mark.parametrize("format", ["auto", *sources.FORMATS[1:-4]])
@given(entries=st.lists(st.dictionaries(st.sampled_from(KEYS), WRONG, max_size=6) | WRONG, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_an_entry_holds_it_is_read_or_told(tmp_path, format, entries):
    path = tmp_path / "val.json"
    for document in (entries, {"data": entries}, {"questions": entries, "annotations": entries}):
        path.write_text(json.dumps(document))
        try:
            records, faults = sources.read(path, format=format, refused=[])
            assert len(records) <= len(entries)
        except InputError as error:
            faults = error.faults
            assert faults
        assert all("\n" not in fault and str(path) in fault for fault in faults)

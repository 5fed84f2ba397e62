"""Sources of every kind of file: read on demand, in any order, from threads and other processes; their errors told."""

import csv
import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import (
    error_of,
    errors_of,
    messages,
    write_arrayrecord,
    write_lines,
    write_parquet,
)
from vlm_jax.errors import InputError

ROOT = Path(__file__).parents[2]
KEYS = (
    "id question_id image images image_id image_path file_path imgname query label question answer answers "
    "conversations messages from value role content type text url image_url set_name system weight "
    "PA_question PA_answer GT_question response history instruction input output prompt completion conversation "
    "human loss train loss_weight tools tool_calls videos audio rejected objects index detail min_pixels bytes path"
).split()


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


def test_embedded_images_are_not_held(tmp_path):
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
def test_a_file_that_changed_after_it_was_opened_is_an_error_not_another_record(tmp_path, kind):
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
    assert error_of(path) == f"{path}: is empty (0 bytes); copy it again"


@pytest.mark.parametrize("name", ["a.parquet", "a.array_record", "a.json", "a.csv", "a.jsonl"])
def test_a_missing_file_of_any_kind_names_the_nearest_one(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"x")
    given = str(path).replace("a.", "ab.")
    assert error_of(given) == f"{given}: no such file; did you mean {path}?"


@pytest.mark.parametrize(
    ("kind", "name", "error"),
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
def test_a_wrong_extension_is_told(tmp_path, kind, name, error):
    (tmp_path / "from").mkdir()
    path = make(kind, tmp_path / "from").rename(tmp_path / name)
    assert error in errors_of(path)[0] and str(path) in errors_of(path)[0]


@pytest.mark.parametrize("kind", ["parquet", "arrayrecord"])
def test_a_file_cut_short_is_one_line(tmp_path, kind):
    path = make(kind, tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "part" in error_of(path) and error_of(path).startswith(f"{path}: is ")


def test_lines_that_are_not_utf8_are_errors_of_their_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    good = json.dumps({"messages": messages()}).encode()
    path.write_bytes(good + b"\n" + good.replace(b"Who", b"\xe9") + b"\n" + good + b"\n\xff\n")
    records, errors = sources.read(path)
    assert len(records) == 2
    assert errors == [
        f"{path}, line 2: is not UTF-8 (byte 0xe9); save the file as UTF-8",
        f"{path}, line 4: is not UTF-8 (byte 0xff); save the file as UTF-8",
    ]
    path.write_text(good.decode(), encoding="utf-16")
    assert "is UTF-16; save the file as UTF-8" in errors_of(path)[0]


def test_nothing_and_nan_are_named_as_what_they_are(tmp_path):
    rows = [
        {"image": "", "question": "Who?", "answer": "I"},
        {"image": float("nan"), "question": float("nan"), "answer": None},
        {"question": "Who?"},
        {"image": "", "question": "Who?", "answers": []},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert errors_of(path) == [
        f"{path}, line 2: the question is NaN (a missing value); it must be a text",
        f"{path}, line 3: the answer is empty; write it or remove the row",
        f"{path}, line 4: the answer is empty; write it or remove the row",
    ]


def test_a_doubled_id_is_told_even_of_an_entry_with_other_errors(tmp_path):
    path = write_lines(
        tmp_path / "a.jsonl",
        [{"id": "a", "messages": messages(answer="")}, {"id": "a", "messages": messages()}],
    )
    first, second = errors_of(path)
    assert "line 1 (id 'a'): message 2 is an empty answer" in first
    assert second.startswith(f"{path}, line 2 (id 'a'): the id 'a' is already that of line 1; give each record its own")


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,question,Question,answer\n,a,b,c\n")
    assert error_of(path) == f"{path}: the header names 'question' twice; rename one of the columns"


def test_a_column_that_is_misspelt_is_suggested(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image,qestion,answer\n,a,b\n")
    assert error_of(path).startswith(
        f"{path}: no column 'question'; the columns found are 'image', 'qestion', 'answer'"
    )
    assert error_of(path).endswith("; is 'qestion' meant?")


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
    ("entry", "error"),
    [
        (sharegpt(images=[]), "1 <image> mark in the text but 0 images under 'images'"),
        (sharegpt(images=["a.jpg", "b.jpg"]), "1 <image> mark in the text but 2 images under 'images'"),
        (sharegpt(images=[3]), "'images' must be a path or a list of paths"),
        (sharegpt(videos=["a.mp4"]), "has 'videos', and only text and images"),
        (
            sharegpt(conversations=[{"from": "observation", "value": "x"}]),
            "turn 1 calls a tool or is one's, and tool calls",
        ),
        (sharegpt(conversations=[{"from": "human"}]), "turn 1 has nothing as its text"),
        (sharegpt(conversations=["x"]), "turn 1 is a text where an object is expected"),
        (sharegpt(conversations={}), "'conversations' must be a list of at least one turn"),
        (sharegpt(images=["http://a.org/b.jpg"]), "is the remote image 'http://a.org/b.jpg'"),
        (sharegpt(images=["gs://bucket/b.jpg"]), "is the remote image 'gs://bucket/b.jpg'"),
    ],
)
def test_an_errory_sharegpt_entry_is_one_line(tmp_path, entry, error):
    path = write_lines(tmp_path / "a.jsonl", [sharegpt(), entry])
    assert error_of(path).startswith(f"{path}, line 2: ") and error in error_of(path)


def test_openai_messages_with_paths_and_data_uris_are_read(tmp_path):
    uri = "data:image/png;base64,iVBORw0KGgo="
    parts = [{"type": "image_url", "image_url": {"url": url, "detail": "auto"}} for url in ("a.jpg", uri)]
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [*parts, messages()[0]]}]
    asked[1]["content"][2] = {"type": "text", "text": "Which?"}
    entry = {"messages": [*asked, {"role": "assistant", "content": "Both", "weight": 1}]}
    path = write_lines(tmp_path / "a.jsonl", [entry])
    for format in ("auto", "openai"):
        ((record,), errors) = sources.read(path, format=format)
        assert errors == [] and images_of(record) == [str(tmp_path / "a.jpg"), b"\x89PNG\r\n\x1a\n"]
    entry["messages"][2]["weight"] = 0
    write_lines(path, [entry])
    for format in ("auto", "openai"):
        assert "every answer has the weight 0, so there is nothing to learn" in error_of(path, format=format)


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
    records, errors = sources.read(write_lines(tmp_path / "a.jsonl", [good, entry]), refused=refused)
    assert len(records) == 1 and errors
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
            records, errors = sources.read(path, format=format, refused=[])
            assert len(records) <= len(entries)
        except InputError as error:
            errors = error.lines
            assert errors
        assert all("\n" not in error and str(path) in error for error in errors)


def test_a_byte_that_is_not_utf8_is_an_error_of_its_row(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"image,question,answer\n,Wer?,Ich.\n,Wo?," + b"\xe4\n" + ",ใคร,ฉัน\n".encode())
    errors: list[str] = []
    held = [record for _, record in sources.scan(sources.open_source(str(path)), errors)]
    assert [record.messages[-1]["content"] for record in held] == ["Ich.", "ฉัน"]
    assert len(errors) == 1 and "line 3" in errors[0] and "not UTF-8" in errors[0]
    path.write_bytes(b"image,fr\xe4ge,answer\n,Wer?,Ich.\n")
    with pytest.raises(InputError, match="line 1 is not UTF-8"):
        sources.open_source(str(path))

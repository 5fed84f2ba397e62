"""scripts/init_model.py: its tokenizer is trained on the words of whatever training reads."""

import importlib
import json

import pytest

from data_pipeline import sources
from tests.data_pipeline.source_files import messages, write_lines, write_parquet
from vlm_jax.errors import InputError


@pytest.fixture(scope="module")
def init_model():
    flags = importlib.import_module("command_line").FLAGS
    known = set(flags)
    yield importlib.import_module("init_model")
    for name in set(flags) - known:
        delattr(flags, name)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "arrayrecord", "txt", "md"])
def test_the_words_of_every_kind_of_file_are_read(init_model, tmp_path, kind):
    path = tmp_path / f"t.{kind}"
    row = {"image": "", "question": "ข้าวซอย?", "answer": "ก๋วยเตี๋ยว"}
    if kind in ("txt", "md"):
        path.write_text("ข้าวซอย?\nก๋วยเตี๋ยว\n", encoding="utf-8")
    elif kind == "csv":
        path.write_text("image,question,answer\n,ข้าวซอย?,ก๋วยเตี๋ยว\n", encoding="utf-8")
    elif kind == "parquet":
        write_parquet(path, [row])
    elif kind == "jsonl":
        write_lines(path, [{"id": "a", "messages": messages("ข้าวซอย?", "ก๋วยเตี๋ยว")}])
    else:
        path = tmp_path / "t.array_record"
        (record,) = sources.read(write_lines(tmp_path / "r.jsonl", [{"id": "a", **row}]))[0]
        sources.write(path, [record], format="arrayrecord")
    assert init_model.lines(str(path)) == ["ข้าวซอย?", "ก๋วยเตี๋ยว"]


def test_what_training_would_refuse_is_refused(init_model, tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(["only", "words"]))
    with pytest.raises(InputError, match="is a text where an object is expected"):
        init_model.lines(str(tmp_path / "t.json"))
    with pytest.raises(InputError, match="no such file"):
        init_model.lines(str(tmp_path / "gone.txt"))

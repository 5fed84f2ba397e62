"""Flags of the chat page, its examples, and where addresses may be fetched."""

import json

import pytest

from page_examples import examples
from page_options import read_options
from plain_text import plain
from tests.started import ROOT
from vlm_jax.errors import InputError

PHOTOS = ROOT / "data_pipeline" / "corpus" / "drawn" / "photographs"


def test_flags_are_read():
    options = read_options(["--model=a", "--model", "b", "--models_in_memory=2", "--quantise=nf4", "--addresses=off"])
    assert options.models == ("a", "b") and options.models_in_memory == 2 and options.addresses == "off"
    assert options.load == {"quantise": "nf4", "quantise_tables": False, "tensor": 1}


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        ([], ["missing --model"]),
        (["--modle=a"], ["--modle: no such flag; did you mean --model?"]),
        (["--model=a", "--mod=b"], ["--mod: no such flag; did you mean --model?"]),
        (["--model=a", "--server.port=1"], ["--server.port: no such flag"]),
        (["--model=a", "b"], ["b: not a flag"]),
        (["--model=a", "--quantise=nf5"], ["nf5"]),
        (["--model=a", "--max_new_tokens=0", "--tensor=0"], ["--max_new_tokens=0", "--tensor=0"]),
        (["--model=a", "--max_new_tokens=many"], ["many"]),
        (["--model=a", "--quantise_tables"], ["goes with --quantise"]),
    ],
)
def test_what_cannot_be_is_named_all_together(words, reasons):
    with pytest.raises(InputError) as error:
        read_options(words)
    assert len(error.value.lines) == len(reasons)
    for line, reason in zip(error.value.lines, reasons, strict=True):
        assert reason in line


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as end:
        read_options(["--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and "--model PATH" in text and "streamlit run app/chat.py --" in text


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


def record(identifier, question, image, answer="A"):
    content = [{"type": "image", "image": str(PHOTOS / image)}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    return {"id": identifier, "messages": messages}


def test_examples_are_of_the_data_that_are_named_or_of_the_run_or_of_the_package(tmp_path):
    asked = [record(str(number), f"Question {number}?", "coffee.jpg") for number in range(40)]
    missing = [record("gone", "Gone?", "nothing.jpg")]
    data = write(tmp_path / "data.jsonl", missing + asked)
    assert [one.question for one in examples(data, "m")] == [f"Question {number}?" for number in (0, 9, 19, 29)]
    run = tmp_path / "run"
    run.mkdir()
    config = {"data": {"path": f"{tmp_path}/moved.jsonl,{data}"}, "validation": {"path": ""}}
    (run / "config.json").write_text(json.dumps(config))
    assert [one.question for one in examples(None, str(run))][0] == "Question 0?"
    for model in (str(tmp_path / "nothing"), "org/model"):
        found = examples(None, model)
        assert len(found) == 4 and {one.question for one in found} == {"What is in the image?"}
    words = write(tmp_path / "words.jsonl", [{"id": "a", "messages": [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello"}]}])  # fmt: skip
    with pytest.raises(InputError, match="asks about one image"):
        examples(words, "m")
    with pytest.raises(InputError, match="no such file"):
        examples(str(tmp_path / "none.jsonl"), "m")


def test_signs_of_markdown_are_escaped_and_no_link_comes_of_a_label():
    assert plain("[a] <b> $y$ `z`\n:red[q] กข") == r"\[a\] \<b\> \$y\$ \`z\` \:red\[q\] กข"
    assert plain("http://x www.y a@b --") == "http\\:\u2060\\/\u2060\\/x www\u2060\\.y a\u2060\\@b \\-\u2060\\-"

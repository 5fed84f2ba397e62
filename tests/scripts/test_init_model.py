"""scripts/init_model.py: its tokenizer is trained on the words of whatever training reads."""

import dataclasses
import importlib
import json

import pytest

from data_pipeline import new_model, sources
from tests.data_pipeline.source_files import messages, write_lines, write_parquet
from vlm_jax.errors import InputError
from vlm_jax.models.presets import PRESETS


@pytest.fixture(scope="module")
def init_model():
    flags = importlib.import_module("command_line").FLAGS
    known = set(flags)
    yield importlib.import_module("init_model")
    for name in set(flags) - known:
        delattr(flags, name)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "arrayrecord", "txt", "md"])
def test_the_words_of_every_kind_of_file_are_read(tmp_path, kind):
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
    assert new_model.lines(str(path)) == ["ข้าวซอย?", "ก๋วยเตี๋ยว"]


def test_what_training_would_refuse_is_refused(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(["only", "words"]))
    with pytest.raises(InputError, match="is a text where an object is expected"):
        new_model.lines(str(tmp_path / "t.json"))
    with pytest.raises(InputError, match="no such file"):
        new_model.lines(str(tmp_path / "gone.txt"))


def start(init_model, tmp_path, preset):
    words = tmp_path / "words.txt"
    words.write_text("a few words\n" * 9)
    arguments = [f"--output={tmp_path / 'model'}", f"--text={words}", f"--preset={preset}", "--vocab=300"]
    flags = importlib.import_module("command_line").FLAGS
    flags(["init_model.py", *arguments])
    init_model.main()
    files = ("preprocessor_config.json", "config.json")
    return [json.loads((tmp_path / "model" / name).read_text()) for name in files]


@pytest.mark.parametrize("preset", ["siglip-qwen2.5-3b", "vit-qwen2.5-3b", "huge"])
def test_a_preset_that_is_not_made_here_is_refused_before_anything_is_drawn(init_model, tmp_path, preset):
    with pytest.raises(InputError, match=f"--preset={preset}: known are tiny, .*qwen2-72b") as caught:
        start(init_model, tmp_path, preset)
    assert ("assemble.py" in str(caught.value)) == (preset != "huge") and not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("family", "preset", "reason"),
    [
        ("qwen3_vl", "3b", "--preset=3b: known of qwen3_vl are 2b, 4b, 8b, 32b, tiny, mini, small"),
        ("qwen3", "tiny", "--family=qwen3: did you mean 'qwen3_vl'?"),
        ("llava", "tiny", "put together by scripts/assemble.py"),
    ],
)
def test_a_size_that_a_family_does_not_have_is_refused(tmp_path, family, preset, reason):
    (tmp_path / "words.txt").write_text("words")
    with pytest.raises(InputError) as caught:
        new_model.make(tmp_path / "model", [str(tmp_path / "words.txt")], family=family, preset=preset, vocab=300)
    assert reason in str(caught.value)


def test_everything_that_is_wrong_is_told_at_once(tmp_path):
    (tmp_path / "words.txt").write_text("words")
    with pytest.raises(InputError) as caught:
        new_model.make(tmp_path, [str(tmp_path / "gone.csv")], preset="huge", vocab=10)
    target, preset, vocab, text = caught.value.lines
    assert "exists and is not empty" in target and preset.startswith("--preset=huge: known are tiny, ")
    assert vocab == "--vocab=10: at least 264, for all bytes and the special tokens" and "gone.csv" in text


@pytest.mark.parametrize(
    ("preset", "name", "model_type"),
    [
        ("tiny", "Qwen2_5_VLProcessor", "qwen2_5_vl"),
        ("qwen2-2b", "Qwen2VLProcessor", "qwen2_vl"),
        ("qwen3-vl-tiny", "Qwen3VLProcessor", "qwen3_vl"),
    ],
)
def test_the_processor_is_the_familys_own(init_model, tmp_path, monkeypatch, preset, name, model_type):
    small, vision = PRESETS["tiny"], PRESETS["qwen2-2b"].vision
    sizes = {"depth": 1, "hidden": 32, "heads": 2, "mlp": 64, "out_hidden": small.decoder.hidden, "global_blocks": (0,)}
    qwen2 = dataclasses.replace(small, vision=dataclasses.replace(vision, **sizes))
    monkeypatch.setitem(PRESETS, "qwen2-2b", qwen2)
    settings, config = start(init_model, tmp_path, preset)
    assert (settings["processor_class"], config["model_type"]) == (name, model_type)

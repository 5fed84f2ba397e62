"""Model folders and state dicts of strangers: what would hang, swell or crash is one line with file and key."""

import json
import struct
import zipfile

import pytest
import torch

import vlm_jax
from vlm_jax.checkpoint import chat_template, description, pth, stop_tokens, weight_files
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def integer(value):
    return b"J" + struct.pack("<i", value)


def named(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def archive(path, pickled, *, data=b"", how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", data, how)
    return path


def of_tensor(path, size, stride, *, data=b"\0" * 16, count=4, offset=0, how=zipfile.ZIP_STORED):
    """A state dict of one tensor "w" of float32, as torch.save pickles it, whatever its numbers say."""
    storage = text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + integer(count)
    shape = b"".join(b"(" + b"".join(map(integer, one)) + b"t" for one in (size, stride))
    tensor = named("torch._utils", "_rebuild_tensor_v2") + b"((" + storage + b"tQ" + integer(offset) + shape + b"\x89"
    tensor += named("collections", "OrderedDict") + b")RtR"
    return archive(path, b"\x80\x02}(" + text("w") + tensor + b"u.", data=data, how=how)


def test_the_archives_made_here_are_read_as_pytorch_reads_them(tmp_path):
    path = of_tensor(tmp_path / "a.pth", (2, 2), (2, 1), data=struct.pack("<4f", 1, 2, 3, 4))
    assert pth.read(path)["w"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("size", "stride", "how"),
    [
        ((20_000, 20_000), (0, 0), {}),
        ((4, 100_000_000), (1, 0), {}),
        ((5,), (1,), {}),
        ((2, 2), (4, 1), {}),
        ((2, 2), (2, 1), {"offset": 1}),
        ((-1,), (1,), {}),
        ((4,), (1,), {"count": 1_000_000_000}),
        ((4,), (1,), {"data": b"\0" * (8 << 20), "how": zipfile.ZIP_DEFLATED}),
    ],
)
def test_tensors_that_are_larger_than_what_is_stored_are_refused(tmp_path, size, stride, how):
    path = of_tensor(tmp_path / "a.pth", size, stride, **how)
    with pytest.raises(InputError, match=str(path)) as caught:
        pth.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02}q\x00(" + text("state_dict") + b"h\x00u.",  # a dictionary that is its own state_dict
        b"\x80\x02}q\x00(" + text("model") + b"}(" + text("state_dict") + b"h\x00uu.",
        b"\x80\x02]q\x00h\x00a.",
        b"\x80\x02" + b"](" * 50_000 + b".",
        named("os", "system") + b"(" + text("true") + b"tR.",
        b"\x80\x02}(" + text("w") + integer(1) + b"u.",
    ],
)
def test_pickles_that_hold_themselves_or_other_things_are_refused(tmp_path, pickled):
    path = archive(tmp_path / "a.pth", pickled)
    with pytest.raises(InputError, match=str(path)) as caught:
        pth.read(path)
    assert "\n" not in str(caught.value)


def test_a_pickle_as_large_as_a_model_is_refused_before_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * (65 << 20))
    with pytest.raises(InputError, match="more than 64 MB beside its tensors"):
        pth.read(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer_config.json", "generation_config.json"]
)
def test_a_key_that_is_there_twice_is_told(folder, name):
    path = folder / name
    stored = json.loads(path.read_text()) if path.is_file() else {"eos_token_id": 0}
    key, value = next(iter(stored.items()))
    path.write_text(f'{{"{key}": {json.dumps(value)}, ' + json.dumps(stored)[1:])
    with pytest.raises(InputError, match=f"{path}: .*the key '{key}' is there twice in one object"):
        vlm_jax.load(folder)


@pytest.mark.parametrize("value", ["1024", True, [1], {"a": 1}])
def test_a_length_that_is_no_number_is_told(folder, value):
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": value}))
    with pytest.raises(InputError, match=f"{path}: model_max_length is .*; wanted a number of tokens"):
        description.read_tokenizer(folder)


@pytest.mark.parametrize("value", [True, -1, 10**30, [0, "1"], [None], 1.5, "0"])
def test_an_end_that_is_no_token_is_told(folder, value):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": value}))
    processor = description.read_processor(folder, description.read_config(folder))
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id must be a token id"):
        stop_tokens.stop_tokens(folder, processor)


@pytest.mark.parametrize("template", ["a\ud800", "\udfffa", "", "  \n", 3, ["a"], {"default": ""}, {"other": "a"}])
def test_a_template_that_is_no_text_is_told(folder, template):
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    for path in folder.glob("chat_template.jinja"):
        path.unlink()
    tokenizer = description.read_tokenizer(folder)
    if template == "":  # says nothing, and the tokenizer's counts
        assert chat_template.read(folder, tokenizer)
        return
    with pytest.raises(InputError, match=f"{folder}/chat_template.json"):
        chat_template.read(folder, tokenizer)


@pytest.mark.parametrize("name", ["a" * 300, "../a", "a/b", "", ".", "..", "a\0b", 3, None, "é" * 200])
def test_names_of_shards_are_plain(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(InputError) as caught:
        weight_files.located(folder)[1] or open_model(str(folder)).check()
    assert "\n" not in str(caught.value)


def test_weights_of_a_state_dict_are_still_read(tmp_path):
    stored = {"w": torch.arange(6.0).reshape(2, 3).T}
    torch.save(stored, tmp_path / "a.pth")
    assert pth.read(tmp_path / "a.pth")["w"].tolist() == stored["w"].tolist()

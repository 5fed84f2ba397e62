"""Hugging Face → Orbax → Hugging Face: not a byte of a tensor changes, and transformers opens the result."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

import vlm_jax
from tests.started import environment, run
from tests.tiny_models import save_tiny
from vlm_jax.checkpoint.model_source import open_model

ROOT = Path(__file__).resolve().parents[2]


def tensors(folder):
    """{name: (dtype, shape, bytes)} over all shards."""
    stored = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                stored[name] = (tensor.dtype, tensor.shape, tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return stored


def convert(source, target, form):
    command = [sys.executable, ROOT / "scripts/convert_checkpoint.py", f"--source={source}", f"--target={target}"]
    return run([*command, f"--format={form}"], env=environment())


@pytest.mark.parametrize(
    ("family", "dtype", "tied"),
    [("qwen2_5_vl", "float32", True), ("qwen2_5_vl", "bfloat16", False), ("qwen3_vl", "bfloat16", False)],
)
def test_a_model_comes_back_byte_for_byte(tmp_path, family, dtype, tied):
    source, orbax, back = tmp_path / "source", tmp_path / "orbax", tmp_path / "back"
    model = save_tiny(source, family=family, layers=2, tied=tied)
    (source / "model.safetensors").unlink()
    model.to(getattr(torch, dtype)).save_pretrained(source, max_shard_size="200KB")
    assert len(list(source.glob("*.safetensors"))) > 1
    for step in ((source, orbax, "orbax"), (orbax, back, "hf")):
        done = convert(*step)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    assert tensors(back) == tensors(source)
    for asset in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (back / asset).read_bytes() == (source / asset).read_bytes()

    opened, info = AutoModelForImageTextToText.from_pretrained(back, output_loading_info=True, dtype="auto")
    assert not any(info.values()), info
    for (name, mine), (_, theirs) in zip(opened.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(mine, theirs), name


def test_a_target_in_the_way_is_not_touched(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    save_tiny(source)
    target.mkdir()
    (target / "mine.txt").write_text("keep")
    done = convert(source, target, "hf")
    assert done.returncode == 1
    assert done.stderr == f"error: {target}: exists and is not empty; remove it or name another target\n"
    assert [path.name for path in target.iterdir()] == ["mine.txt"]


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    save_tiny(tmp_path / "source")
    with pytest.raises(vlm_jax.InputError, match="format 'gguf': known are hf, peft, pth, orbax"):
        vlm_jax.export(tmp_path / "source", tmp_path / "target", "gguf")


def test_a_checkpoint_that_was_never_finished_is_not_taken_for_one(tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    save_tiny(source)
    vlm_jax.export(source, run, "orbax")
    # What a kill during a save leaves: Orbax's name of an unfinished step.
    (run / "checkpoints" / "0").rename(run / "checkpoints" / "0.orbax-checkpoint-tmp")
    with pytest.raises(vlm_jax.InputError, match="without a finished checkpoint"):
        vlm_jax.load(run)


def test_a_digest_tells_weights_apart_and_not_places(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    save_tiny(one, layers=1, depth=1, global_blocks=(0,))
    save_tiny(other, layers=1, depth=1, global_blocks=(0,), seed=1)
    for folder in (one, other):
        vlm_jax.export(folder, folder.with_suffix(".run"), "orbax")
    digests = {name: open_model(str(tmp_path / name)).digest() for name in ("one", "other", "one.run", "other.run")}
    assert len(set(digests.values())) == 4
    for name, digest in digests.items():
        assert open_model(str((tmp_path / name).rename(tmp_path / f"moved-{name}"))).digest() == digest

"""scripts/train.py with adapters: small checkpoints, exact resume, merged and PEFT exports, clear errors."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import vlm_jax
from tests.checkpoint.folders import change_tensors
from tests.scripts.test_train import STEPS, losses, train
from tests.started import ROOT, environment, run
from tests.tiny_models import ONE_LAYER, PHOTOS, assistant, save_tiny, user
from vlm_jax.checkpoint import safetensors_file
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

LORA = [
    "--config.lora.rank=4",
    "--config.lora.dropout=0.1",
    "--config.model.quantise=nf4",
    "--config.checkpoint.keep=9",
]
QUESTION = [user("What is it called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")]


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "lora"
    done = train(base, workdir, *LORA)
    assert done.returncode == 0, done.stderr
    return workdir


def test_checkpoints_hold_adapters_alone_and_the_loss_falls(base, trained):
    source = open_model(str(trained))
    own = source.read_adapters()
    assert own and all(path.endswith(("/adapter/a", "/adapter/b")) for path in own)
    assert source.trained_beside_adapters() == [] and source.lora.rank == 4
    reported = losses(trained)
    assert np.mean(reported[-3:]) < np.mean(reported[:3])
    for path, array in open_model(str(base)).read().items():
        np.testing.assert_array_equal(array, source.read()[path])


def test_a_run_goes_on_with_the_same_losses_and_adapters(base, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    left = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    assert len(left) > 1
    for step in left[1:]:  # what a kill after the first save would have left
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    again = train(base, tmp_path / "run", *LORA)
    assert again.returncode == 0, again.stderr
    assert f"going on from step {left[0]}" in again.stderr
    assert losses(tmp_path / "run") == losses(trained)
    for path, array in open_model(str(tmp_path / "run")).read_adapters().items():
        np.testing.assert_array_equal(array, open_model(str(trained)).read_adapters()[path])


def test_every_way_out_gives_the_same_model(base, trained, tmp_path):
    expected = vlm_jax.load(trained).logits(QUESTION)
    vlm_jax.export(trained, tmp_path / "peft", "peft")
    vlm_jax.export(trained, tmp_path / "hf", "hf")
    scale = np.abs(expected).max()
    for other in (
        vlm_jax.load(tmp_path / "peft"),
        vlm_jax.load(base, adapter=tmp_path / "peft"),
        vlm_jax.load(base, adapter=trained),
        vlm_jax.load(tmp_path / "hf"),
    ):
        assert np.abs(other.logits(QUESTION) - expected).max() < 1e-5 * scale
    assert np.abs(vlm_jax.load(base).logits(QUESTION) - expected).max() > 1e-3 * scale


def test_a_base_that_is_gone_or_another_is_named_and_one_that_moved_is_gone_on_with(base, trained, tmp_path):
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(trained, tmp_path / "run")
    shutil.copytree(base, moved)
    save_tiny(other, **ONE_LAYER, seed=5)
    with pytest.raises(InputError, match="trained on other weights than those of .*other"):
        vlm_jax.load(other, adapter=trained)
    hidden = base.rename(base.with_name("hidden"))
    try:
        with pytest.raises(InputError, match=f"belongs to {base}, which cannot be had"):
            vlm_jax.load(trained)
        assert vlm_jax.load(moved, adapter=trained).logits(QUESTION).shape
        chat = [
            sys.executable,
            ROOT / "scripts" / "chat.py",
            f"--model={trained}",
            "--question=Hi",
            "--max_new_tokens=2",
        ]
        gone, asked = (run([*chat, *more], env=environment()) for more in ([], [f"--base={moved}"]))
        assert gone.returncode == 1 and "--base=FOLDER" in gone.stderr
        assert asked.returncode == 0, asked.stderr
        again = train(moved, tmp_path / "run", *LORA)
        assert again.returncode == 0 and f"finished: all {STEPS} steps" in again.stderr, again.stderr
    finally:
        hidden.rename(base)


def test_a_base_that_differs_in_one_small_tensor_has_another_digest(base, tmp_path):
    shutil.copytree(base, tmp_path / "copy")
    digest = open_model(str(base)).digest()
    assert open_model(str(tmp_path / "copy")).digest() == digest
    change_tensors(tmp_path / "copy", lambda stored: stored["visual.merger.mlp.0.bias"].add_(1))
    assert open_model(str(tmp_path / "copy")).digest() != digest


@pytest.mark.parametrize(
    "settings, error",
    [
        (["--config.lora.rank=4", "--config.lora.targets=nothing"], "matches none of the"),
        (["--config.lora.rank=4", "--config.train.trainable=connector"], "trains no adapter"),
        (["--config.batch.gradient_accumulation=3"], "a divisor of batch.rows"),
        (["--config.model.quantise=nf3"], "wanted none, nf4 or int8"),
        (["--config.model.quantise=nf4"], "trains every kernel: nothing is left to be quantised"),
    ],
)
def test_impossible_settings_are_one_line_before_compiling(base, tmp_path, settings, error):
    done = train(base, tmp_path / "run", *settings)
    assert done.returncode == 1 and "compiling" not in done.stderr
    assert error in done.stderr and done.stderr.count("error: ") == 1
    assert not (tmp_path / "run").exists()


def test_a_model_with_adapters_is_merged_before_it_is_trained_on(trained, tmp_path):
    done = train(trained, tmp_path / "run")
    assert done.returncode == 1 and "merge them first" in done.stderr


@pytest.fixture(scope="module")
def aligned(base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "connector"
    done = train(base, workdir, "--config.train.trainable=connector", "--config.checkpoint.keep=9")
    assert done.returncode == 0, done.stderr
    return workdir


def test_a_connector_that_trains_alone_is_kept_alone_and_gone_on_with(base, aligned, tmp_path):
    source = open_model(str(aligned))
    own = source.read_beside_adapters()
    assert own and all(path.startswith("connector/") for path in own) and source.lora is None
    whole = source.read()
    for path, array in open_model(str(base)).read().items():
        assert (path in own) != np.array_equal(array, whole[path]), path
    shutil.copytree(aligned, tmp_path / "run")
    left = sorted(int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit())
    for step in left[1:]:
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    again = train(base, tmp_path / "run", "--config.train.trainable=connector", "--config.checkpoint.keep=9")
    assert again.returncode == 0 and f"going on from step {left[0]}" in again.stderr, again.stderr
    assert losses(tmp_path / "run") == losses(aligned)
    for path, array in open_model(str(tmp_path / "run")).read_beside_adapters().items():
        np.testing.assert_array_equal(array, own[path])


def test_adapters_are_trained_on_a_connector_that_has_a_base_and_go_with_it_into_a_folder_of_peft(
    base, aligned, tmp_path
):
    more = ["--config.lora.rank=2", "--config.train.trainable=adapter+connector", "--config.train.steps=2"]
    done = train(aligned, tmp_path / "run", *more)
    assert done.returncode == 0, done.stderr
    vlm_jax.export(tmp_path / "run", tmp_path / "peft", "peft")
    vlm_jax.export(tmp_path / "run", tmp_path / "hf", "hf")
    expected = vlm_jax.load(tmp_path / "run").logits(QUESTION)
    of_peft = vlm_jax.load(base, adapter=tmp_path / "peft")  # the base of the connector: peft could open no other
    np.testing.assert_allclose(of_peft.logits(QUESTION), expected, atol=1e-5)
    np.testing.assert_allclose(vlm_jax.load(tmp_path / "hf").logits(QUESTION), expected, atol=1e-5)
    with pytest.raises(InputError, match="has no adapters"):
        vlm_jax.export(aligned, tmp_path / "none", "peft")


def flipped(path, name, place):
    """Turns one bit of a tensor over, `place` of the way to its end."""
    stored, start = safetensors_file.header(path)
    first, last = stored[name]["data_offsets"]
    whole = bytearray(path.read_bytes())
    whole[start + first + int((last - first) * place)] ^= 16
    path.write_bytes(whole)


@pytest.mark.parametrize("place", [0.2, 0.45, 0.98])
def test_a_bit_that_is_another_in_a_base_since_the_run_began_is_noticed(base, trained, tmp_path, place):
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    flipped(copy / "model.safetensors", "model.embed_tokens.weight", place)
    assert open_model(str(copy)).digest() == open_model(str(base)).digest()  # is at no spot that is looked at
    for read in (lambda: vlm_jax.load(copy, adapter=trained),
                 lambda: vlm_jax.export(trained, tmp_path / "hf", "hf", base=str(copy)),
                 lambda: open_model(str(trained), base=str(copy)).deferred()):  # fmt: skip
        with pytest.raises(InputError, match=f"{copy}: damaged, or changed since the run .* began: .*embed_tokens"):
            read()
    assert not (tmp_path / "hf").exists()


def test_a_base_in_other_files_is_the_same_base(base, trained, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
    copy = Path(shutil.copytree(base, tmp_path / "copy", ignore=shutil.ignore_patterns("*.safetensors")))
    model.save_pretrained(tmp_path / "saved", max_shard_size="100KB")
    for path in (tmp_path / "saved").glob("model*"):
        shutil.copy(path, copy)
    assert len(list(copy.glob("*.safetensors"))) > 1
    assert open_model(str(copy)).digest() != open_model(str(base)).digest()  # which goes by files
    expected = vlm_jax.load(trained).logits(QUESTION)
    np.testing.assert_array_equal(vlm_jax.load(copy, adapter=trained).logits(QUESTION), expected)


DAMAGED = {
    "is no object": lambda stored: [1],
    "base": lambda stored: {**stored, "base": 5},
    "no digest": lambda stored: {"base": stored["base"], "lora": stored["lora"]},
    "digits": lambda stored: {**stored, "tensors": "zzzzzzzz"},
    "half a digest": lambda stored: {**stored, "tensors": stored["tensors"][:-1]},
    "no digests": lambda stored: {**stored, "tensors": ""},
    "a number": lambda stored: {**stored, "tensors": 5},
    "rank": lambda stored: {**stored, "lora": {**stored["lora"], "rank": "a"}},
    "no rank": lambda stored: {**stored, "lora": {"x": 1}},
    "alpha": lambda stored: {**stored, "lora": {**stored["lora"], "alpha": float("nan")}},
    "a truth": lambda stored: {**stored, "lora": {**stored["lora"], "rslora": "false"}},
    "unknown": lambda stored: {**stored, "lora": {**stored["lora"], "more": 1}},
}


@pytest.mark.parametrize("how", DAMAGED)
def test_what_a_checkpoint_says_of_its_base_is_checked(trained, tmp_path, how):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    step = run / "checkpoints" / str(STEPS)
    (path,) = [path for path in (step / "settings").iterdir() if path.is_file() and "adapter" in path.read_text()]
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"adapter": DAMAGED[how](stored["adapter"])}))
    (step / "digests.json").unlink()  # as somebody would who means it
    with pytest.raises(InputError, match=f"checkpoint {STEPS}: what its settings say of the base and the adapters"):
        open_model(str(run))

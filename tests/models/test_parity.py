"""Every architecture against transformers in fp32: logits, gradients, greedy answers."""

import jax
import numpy as np
import pytest
import torch

from tests.tiny_models import PHOTOS, assistant, noise, reference_inputs, save_tiny, user
from vlm_jax.checkpoint.names import name_table
from vlm_jax.inference.loading import load
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import assemble, stack
from vlm_jax.training.step import make_loss

VARIANTS = {
    "grouped-1-tied": {"layers": 3, "heads": 4, "kv_heads": 4, "tied": True},
    "grouped-2-untied": {"layers": 5, "heads": 4, "kv_heads": 2, "tied": False},
    "grouped-8-tied-irregular-tower": {"layers": 2, "heads": 8, "kv_heads": 1, "tied": True, "global_blocks": (0, 3)},
    "qwen2-vl": {"family": "qwen2_vl", "layers": 2, "heads": 4, "kv_heads": 2, "tied": False, "depth": 3},
    # heads × head_dim is not the width, as in the 4B and the 32B; DeepStack takes the first and the last block
    "qwen3-vl": {
        "family": "qwen3_vl",
        "layers": 4,
        "heads": 4,
        "kv_heads": 2,
        "hidden": 48,
        "global_blocks": (0, 1, 3),
    },
    "qwen3-vl-untied": {"family": "qwen3_vl", "layers": 2, "heads": 4, "kv_heads": 1, "tied": False, "depth": 3},
}
CAPACITY = Size(512, 1024, 32)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """(folder, transformers' model, ours) of one variant."""
    folder = tmp_path_factory.mktemp(request.param)
    theirs = save_tiny(folder, **VARIANTS[request.param])
    return folder, theirs, load(folder, dtype="float32")


def conversations(folder):
    odd = [noise(folder, w, h) for w, h in ((28 * 5, 28 * 3), (28 * 9, 28 * 6), (28 * 1, 28 * 2))]
    return {
        "text only": [user("What does VQA stand for?"), assistant("Visual question answering")],
        "one image": [user("What is the cat called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")],
        "an image smaller than a window": [user("Grey?", noise(folder, 56, 56)), assistant("No")],
        "whole windows": [user("What?", noise(folder, 28 * 8, 28 * 4)), assistant("Noise")],
        "three images of different sizes, none a multiple of a window": [
            user("Which is the tallest?", *odd),
            assistant("The second"),
            user("And the smallest?"),
            assistant("The third"),
        ],
    }


def test_logits_equal_those_of_transformers(pair):
    folder, theirs, ours = pair
    for name, messages in conversations(folder).items():
        inputs = reference_inputs(folder, ours.processor.tokenizer, messages)
        with torch.no_grad():
            expected = theirs(**inputs).logits[0].numpy()
        assert ours.encode(messages).input_ids.tolist() == inputs["input_ids"][0].tolist(), name
        logits = ours.logits(messages)
        assert logits.dtype == np.float32
        assert np.abs(expected).max() > 1, f"{name}: weights too small to show a difference"
        assert np.abs(logits - expected).max() <= 1e-4, name


def test_gradients_of_every_tensor_equal_those_of_transformers(pair):
    folder, theirs, ours = pair
    gradient = jax.jit(
        jax.grad(make_loss(ours.config, dtype=np.float32, implementation="chunked", remat="none"), has_aux=True)
    )
    for name, messages in conversations(folder).items():
        example = ours.encode(messages)
        inputs = reference_inputs(folder, ours.processor.tokenizer, messages)
        labels = torch.where(torch.from_numpy(example.supervised)[None], inputs["input_ids"], -100)
        theirs.zero_grad(set_to_none=True)
        theirs(**inputs, labels=labels).loss.backward()
        expected = {key: p.grad for key, p in theirs.named_parameters()}

        row = assemble([example], ours.processor.row_spec(CAPACITY))
        found, _ = gradient(ours.parameters, {}, stack([row]))
        for entry in name_table(ours.config):
            whole = np.asarray(found[entry.path])
            for index, tensor in enumerate(entry.tensors()):
                mine = entry.transform.write(whole[index] if entry.layers else whole)
                reference = expected[in_memory(tensor)]
                # Without an image transformers does not run its tower: no gradient means zero.
                reference = np.zeros_like(mine) if reference is None else reference.numpy()
                size, difference = np.linalg.norm(reference), np.linalg.norm(mine - reference)
                assert difference <= max(1e-4 * size, 1e-7), f"{name}: {tensor}: {difference} against {size}"


def in_memory(tensor: str) -> str:
    """transformers' own name of a tensor of the hub's layout."""
    if tensor.startswith("model."):
        return tensor.replace("model.", "model.language_model.", 1)
    return f"model.{tensor}" if tensor.startswith("visual.") else tensor


def test_greedy_answers_of_a_batch_of_unequal_lengths_equal_those_of_transformers(pair):
    folder, theirs, ours = pair
    prompts = [messages[:1] for messages in conversations(folder).values()]
    expected = []
    for messages in prompts:
        inputs = reference_inputs(folder, ours.processor.tokenizer, messages, generation_prompt=True)
        with torch.no_grad():
            tokens = theirs.generate(**inputs, max_new_tokens=64, do_sample=False, eos_token_id=None)
        expected.append(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    answers = endless(ours).generate_tokens(prompts, max_new_tokens=64)
    assert [len(answer) for answer in expected] == [64] * len(prompts)
    assert [answer.tolist() for answer in answers] == expected


def endless(model):
    """The same model without stop tokens, so that answers run to their full length."""
    return type(model)(model.config, model.parameters, model.processor, (), dtype=np.dtype("float32"))

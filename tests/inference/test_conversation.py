"""Conversations that go on: what was read is kept, and answers are those of a model that reads everything anew."""

import numpy as np
import pytest
import torch

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, noise, reference_inputs, save_tiny, user

CAT = str(PHOTOS / "chelsea.jpg")
QUESTIONS = ("What is it called?", "And what colour is it?", "Is it asleep?", "Where does it look?", "Thank you")


BOTH = pytest.mark.parametrize("made", ["qwen2_5_vl", "qwen3_vl"], indirect=True)


@pytest.fixture(scope="module")
def made(request, tmp_path_factory):
    """Of the family that a test is for; Qwen2.5-VL unless said otherwise."""
    folder = tmp_path_factory.mktemp("model")
    family = getattr(request, "param", "qwen2_5_vl")
    return folder, save_tiny(folder, family=family, layers=2, depth=2, global_blocks=(1,))


def answers(model, messages, questions, **how):
    """Asks one question after the other; what the model said."""
    messages, said = list(messages), []
    for question in questions:
        messages.append(question if isinstance(question, dict) else user(question))
        said.append(model.generate(messages, max_new_tokens=8, **how))
        messages.append(assistant(said[-1]))
    return said


def anew(folder, messages, questions, **how):
    """The same, each turn by a model that has kept nothing."""
    messages, said = list(messages), []
    model = vlm_jax.load(folder)
    for question in questions:
        messages.append(question if isinstance(question, dict) else user(question))
        model.forget()
        said.append(model.generate(messages, max_new_tokens=8, **how))
        messages.append(assistant(said[-1]))
    return said, model.images_encoded


SAMPLED = {"temperature": 1.0, "top_p": 0.9, "seed": 3, "repetition_penalty": 1.5}


@BOTH
@pytest.mark.parametrize("how", [{}, pytest.param(SAMPLED, marks=pytest.mark.evidence)])
def test_five_turns_about_one_image_encode_it_once(made, how):
    folder, _ = made
    model = vlm_jax.load(folder)
    questions = [user(QUESTIONS[0], CAT), *QUESTIONS[1:]]
    expected, encoded = anew(folder, [], questions, **how)
    assert encoded == len(QUESTIONS)
    assert answers(model, [], questions, **how) == expected
    assert model.images_encoded == 1


@BOTH
def test_a_later_image_is_read_beside_the_first(made, tmp_path):
    folder, _ = made
    model = vlm_jax.load(folder)
    questions = [user("What?", CAT), user("And this?", noise(tmp_path, 84, 140)), "Which is larger?"]
    assert answers(model, [], questions) == anew(folder, [], questions)[0]
    assert model.images_encoded == 2


def test_another_image_in_the_same_words_is_looked_at(made, tmp_path):
    folder, _ = made
    model = vlm_jax.load(folder)
    images = [noise(tmp_path, 112, 112, seed) for seed in range(2)]
    for image in images * 2:
        kept = model.generate([user("What?", image)], max_new_tokens=8)
        assert [kept] == anew(folder, [], [user("What?", image)])[0]
    assert model.images_encoded == 2


def test_other_weights_are_not_answered_with_what_was_read_by_the_ones_before(made, tmp_path):
    folder, _ = made
    save_tiny(tmp_path, layers=2, depth=2, global_blocks=(1,), seed=7)
    model, other = vlm_jax.load(folder), vlm_jax.load(tmp_path)
    question = [user("What is it called?", CAT)]
    before, expected = model.generate(question, max_new_tokens=12), other.generate(question, max_new_tokens=12)
    model.parameters = other.parameters
    assert model.generate(question, max_new_tokens=12) == expected != before


def test_a_stream_that_was_left_can_be_gone_on_with(made):
    folder, _ = made
    model = vlm_jax.load(folder)
    pieces = model.stream([user("Tell me", CAT)], max_new_tokens=32)
    first = next(pieces)
    pieces.close()
    go_on = [user("Tell me", CAT), assistant(first), user("Go on")]
    model_anew = vlm_jax.load(folder)
    assert model.generate(go_on, max_new_tokens=8) == model_anew.generate(go_on, max_new_tokens=8)
    assert model.images_encoded == 1


@BOTH
def test_a_turn_after_a_long_answer_equals_transformers(made):
    folder, theirs = made
    model = vlm_jax.load(folder)
    messages = [user("What is it called?", CAT)]
    messages += [assistant(model.generate(messages, max_new_tokens=80)), user("Sure?")]
    inputs = reference_inputs(folder, model.processor.tokenizer, messages, generation_prompt=True)
    with torch.no_grad():
        tokens = theirs.generate(**inputs, max_new_tokens=24, do_sample=False)
    expected = tokens[0, inputs["input_ids"].shape[1] :].numpy()
    (found,) = model.generate_tokens([messages], max_new_tokens=24)
    np.testing.assert_array_equal(found, expected[: len(found)])
    assert model.images_encoded == 1


@pytest.mark.parametrize(
    "made, kind, share",
    [("qwen2_5_vl", "nf4", 0.29), ("qwen2_5_vl", "int8", 0.52), ("qwen3_vl", "nf4", 0.29)],
    indirect=["made"],
)
def test_linear_layers_in_4_or_8_bits_take_little_and_answer_as_their_reference(made, kind, share):
    from vlm_jax.adapters import quantised

    folder, _ = made
    plain, model = vlm_jax.load(folder), vlm_jax.load(folder, quantise=kind)
    packed = {path.rpartition("/")[0] for path in model.parameters if path.endswith("/scales")}
    size = sum(leaf.nbytes for path, leaf in model.parameters.items() if path.rpartition("/")[0] in packed)
    # Blocks of 64 are not filled by layers this narrow: counted by what full ones take.
    wide = sum(
        plain.parameters[path].shape[-1]
        * -(-plain.parameters[path].shape[-2] // 64)
        * 64
        * int(np.prod(plain.parameters[path].shape[:-2]))
        for path in packed
    )
    assert size <= share * wide * 2
    # The reference: the same weights, rounded, in plain float32.
    rounded = dict(plain.parameters)
    for path in packed:
        codes = model.parameters[f"{path}/{quantised.CODES[kind]}"]
        kernel = plain.parameters[path]
        rounded[path] = quantised.dequantise(codes, model.parameters[f"{path}/scales"], kind, kernel.shape[-2])
    plain.parameters = rounded
    messages = [user("What is it called?", CAT), assistant("Chelsea")]
    expected = plain.logits(messages)
    assert np.abs(model.logits(messages) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert isinstance(model.generate(messages[:1], max_new_tokens=4), str)


def test_an_unknown_kind_of_quantisation_is_named(made):
    with pytest.raises(vlm_jax.InputError, match="quantise 'nf5': known are nf4, int8"):
        vlm_jax.load(made[0], quantise="nf5")

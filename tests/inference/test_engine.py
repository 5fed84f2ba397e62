"""`vlm_jax.load(...)` as its users call it."""

import base64
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, save_tiny, user
from vlm_jax.errors import InputError

IMAGE = PHOTOS / "chelsea.jpg"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_tiny(folder, layers=2, depth=2, global_blocks=(1,))
    return vlm_jax.load(folder)


def test_importing_the_package_is_quick():
    code = """if True:
        import sys, time
        start = time.perf_counter()
        import vlm_jax
        print(time.perf_counter() - start, "jax" in sys.modules)"""
    seconds, jax_loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split()
    assert float(seconds) < 0.5 and jax_loaded == "False"


def test_one_conversation_gives_text_and_a_list_gives_a_list(model):
    question = [user("What is it?", IMAGE)]
    answer = model.generate(question, max_new_tokens=8)
    assert isinstance(answer, str)
    assert model.generate([question], max_new_tokens=8) == [answer]
    assert model.generate([], max_new_tokens=8) == []


def test_an_answer_does_not_depend_on_its_batch(model):
    questions = [[user("What is it?", IMAGE)], [user("Hello")]] + [[user("word " * n)] for n in (1, 3, 60)]
    together = model.generate(questions, max_new_tokens=12, temperature=0.0)
    assert together == [model.generate(question, max_new_tokens=12) for question in questions]


def test_a_prompt_longer_than_the_model_reads_is_refused_with_the_numbers(model):
    before = model.context_length
    assert before == 32768  # what transformers writes where nothing else was said
    try:
        model.context_length = 60
        with pytest.raises(
            InputError, match=r"the prompt takes \d+ tokens and the answer up to 30; the model reads 60"
        ):
            model.generate([user("How long may this be?")], max_new_tokens=30)
        assert isinstance(model.generate([user("Short")], max_new_tokens=2), str)
    finally:
        model.context_length = before


def test_an_image_may_be_given_in_any_form(model):
    data = base64.b64encode(IMAGE.read_bytes()).decode()
    forms = [
        {"type": "image", "image": str(IMAGE)},
        {"type": "image", "image": IMAGE.read_bytes()},
        {"type": "image", "image": Image.open(IMAGE)},
        {"type": "image", "image": np.asarray(Image.open(IMAGE).convert("RGB"))},
        {"type": "image_url", "image_url": {"url": str(IMAGE)}},
        {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}},
    ]
    logits = [model.logits([{"role": "user", "content": [form, {"type": "text", "text": "What?"}]}]) for form in forms]
    for other in logits[1:]:
        np.testing.assert_array_equal(logits[0], other)


def test_logits_have_a_row_for_each_token(model):
    messages = [user("What?", IMAGE), assistant("A cat")]
    logits = model.logits(messages)
    assert logits.shape == (len(model.encode(messages).input_ids), model.config.decoder.vocab)
    assert logits.dtype == np.float32


def test_a_seed_repeats_a_varied_answer_and_another_seed_varies_it(model):
    question = [user("Tell me something")]

    def vary(seed):
        return model.generate(question, max_new_tokens=24, temperature=1.0, seed=seed)

    assert vary(1) == vary(1)
    assert len({vary(seed) for seed in range(4)}) > 1


@pytest.mark.parametrize("limit", [1, 2, 5, 70])
def test_the_pieces_of_a_stream_are_the_answer(model, limit):
    question = [user("What is it?", IMAGE)]
    assert "".join(model.stream(question, max_new_tokens=limit)) == model.generate(question, max_new_tokens=limit)


def test_a_token_budget_changes_how_many_visual_tokens_an_image_takes(model, tmp_path):
    save_tiny(tmp_path)
    small = vlm_jax.load(tmp_path, visual_tokens=9)
    question = [user("What?", IMAGE)]
    image_token = model.config.image_token
    assert (small.encode(question).input_ids == image_token).sum() <= 9
    assert (model.encode(question).input_ids == image_token).sum() > 40


@pytest.mark.parametrize(
    "call, line",
    [
        (lambda m: m.generate([user("Hi")], max_new_tokens=0), "max_new_tokens is 0"),
        (lambda m: m.generate([{"role": "bot", "content": "Hi"}]), "role 'bot'; known: system, user, assistant"),
        (lambda m: m.generate([user("Hi", "nowhere.png")]), "nowhere.png: no such image"),
        (lambda m: m.generate([user("Hi", "https://example.org/a.png")]), "remote images are not fetched"),
        (lambda m: m.logits([]), "messages must be a non-empty list"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(model, call, line):
    with pytest.raises(vlm_jax.InputError) as error:
        call(model)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_folder_that_is_no_model_is_told(tmp_path):
    with pytest.raises(vlm_jax.InputError, match="config.json: missing"):
        vlm_jax.load(tmp_path)
    with pytest.raises(vlm_jax.InputError, match="dtype 'int4': known are auto, float32, bfloat16"):
        vlm_jax.load(tmp_path, dtype="int4")


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "top_p": 0.9}, {"repetition_penalty": 1.5}])
def test_weights_that_are_no_numbers_are_told_by_name(base, how):
    model = vlm_jax.load(base)
    kernel = np.array(model.parameters["decoder/norm/scale"])
    kernel[3] = np.nan
    model.parameters = {**model.parameters, "decoder/norm/scale": jnp.asarray(kernel)}
    reported = "the model computes NaN: decoder/norm/scale hold NaN or infinity"
    question = [user("What is it?")]
    with pytest.raises(InputError, match=reported):
        model.generate(question, max_new_tokens=4, **how)
    with pytest.raises(InputError, match=reported):
        model.generate([question, [user("And what is this?")]], max_new_tokens=4, **how)
    with pytest.raises(InputError, match=reported):
        list(model.stream(question, max_new_tokens=4, **how))

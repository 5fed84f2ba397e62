"""A model on this machine as a teacher: it says what `generate` says, together, and is known by its weights."""

import numpy as np
import pytest

import vlm_jax
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.request import Failure, ImageFile, Request
from data_pipeline.teachers.settings import open_teacher
from data_pipeline.teachers.store import Store
from tests.data_pipeline.teachers.teacher_server import image_for
from tests.tiny_encoders import save_clip

BASE = "vlm_jax/assets/tiny_base"


@pytest.fixture(scope="module")
def teacher():
    settings = {"kind": "local", "model": BASE, "rows": 4, "temperature": 0.0, "max_output_tokens": 8}
    return open_teacher(settings, "config.teachers.student", wanted="text")


@pytest.fixture
def asker(tmp_path):
    with Asker(Store(tmp_path / "store")) as asker:
        yield asker


def test_answers_are_those_of_generate_whichever_are_answered_together(teacher, asker, tmp_path):
    image = tmp_path / "image.png"
    image.write_bytes(image_for("a lamp"))
    shown = (ImageFile("d1", image, "image/png"),)
    questions = ["What colour is it?", "What is this called?", "สิ่งนี้สีอะไร", "How many are there?", "Where is it?"]
    requests = [Request("text", question, shown) for question in questions]
    outcomes = asker.ask(teacher, requests)
    model = teacher._model
    for question, outcome in zip(questions, outcomes, strict=True):
        content = [{"type": "image", "image": image.read_bytes()}, {"type": "text", "text": question}]
        expected = model.generate([{"role": "user", "content": content}], max_new_tokens=8)
        if isinstance(outcome, Failure):
            tokens = model.generate_tokens([[{"role": "user", "content": content}]], 8)[0]
            assert outcome.reason == ("cut off" if len(tokens) == 8 else "empty")
        else:
            assert outcome.text == expected
    assert any(not isinstance(outcome, Failure) for outcome in outcomes)


def test_samples_differ_by_their_number_and_are_the_same_again(teacher, asker, tmp_path):
    hot = [Request("text", "What is it?", parameters={"temperature": 1.5}, sample=sample) for sample in range(4)]
    first = asker.ask(teacher, hot)
    with Asker(Store(tmp_path / "other")) as other:
        assert other.ask(teacher, list(reversed(hot))) == list(reversed(first))
    assert len({str(outcome) for outcome in first}) > 1
    with Asker(Store(tmp_path / "alone")) as alone:  # what is drawn does not depend on who is answered beside it
        assert [alone.ask(teacher, [one])[0] for one in hot] == first


def test_what_is_drawn_for_one_image_says_nothing_of_what_is_for_another(teacher, asker, tmp_path):
    images = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        path.write_bytes(image_for("a lamp"))  # alike, so that only the draws could make a difference
        images.append(ImageFile(f"digest {number}", path, "image/png"))
    hot = {"temperature": 1.5}
    outcomes = asker.ask(teacher, [Request("text", "What is it?", (image,), parameters=hot) for image in images])
    assert len({str(outcome) for outcome in outcomes}) > 3
    seeds = [
        Request("text", "What is it?", (image,), sample=s).seed(c) for image in images for s in (0, 1) for c in (0, 1)
    ]
    assert len(set(seeds)) == 24 and all(0 <= seed < 2**31 for seed in seeds)
    assert Request("text", "q", attempt=1).key("m", {}) == Request("text", "q").key("m", {})
    assert Request("text", "q", attempt=1).seed(0) != Request("text", "q").seed(0)


def test_a_model_is_known_by_its_weights_not_by_its_path(teacher):
    model = vlm_jax.load(BASE)
    assert teacher.model == f"tiny_base {model.fingerprint()}"
    with pytest.raises(ValueError, match="a teacher of kind local has no image"):
        open_teacher({"kind": "local", "model": BASE}, "config.teachers.image", wanted="image")


def test_vectors_are_those_of_a_clip_or_of_the_model_and_the_prompt_alone_decides_them(teacher, asker, tmp_path):
    folder = tmp_path / "clip"
    save_clip(folder)
    encoder = vlm_jax.load_encoder(folder)
    texts = ["What is it? a lamp", "A lamp of brass stands on the table."]
    requests = [Request("embedding", text) for text in texts]
    clip = open_teacher({"kind": "local", "model": str(folder)}, "config.teachers.embedding", wanted="embedding")
    vectors = [outcome.vector for outcome in asker.ask(clip, requests)]
    np.testing.assert_allclose(vectors, encoder.encode_texts(texts), atol=1e-6)
    assert clip.model == f"clip {encoder.fingerprint()}"
    own = [outcome.vector for outcome in asker.ask(teacher, requests)]
    np.testing.assert_allclose(own, [teacher._model.embed(text) for text in texts], atol=1e-6)


def test_a_clip_has_vectors_of_images_and_no_texts_to_give(asker, tmp_path):
    folder, image = tmp_path / "clip", tmp_path / "image.png"
    save_clip(folder)
    image.write_bytes(image_for("a lamp"))
    shown = ImageFile("d1", image, "image/png")
    clip = open_teacher({"kind": "local", "model": str(folder)}, "config.teachers.embedding", wanted="embedding")
    one, two = asker.ask(clip, [Request("embedding", "", (shown,)), Request("embedding", "", (shown, shown))])
    np.testing.assert_allclose(one.vector, vlm_jax.load_encoder(folder).embed(image=image), atol=1e-6)
    assert two == Failure("cannot be asked", "a vector is of one image at most")
    (refused,) = asker.ask(clip, [Request("text", "What is it?")])
    assert refused.reason == "cannot be asked" and "model_type is 'clip'" in refused.detail

"""The main job on real photographs: a model made here from nothing learns conversations about them word for word."""

import dataclasses
import sys
from pathlib import Path

import pytest

import vlm_jax
from data_pipeline import sources
from tests import started
from tests.tiny_models import PHOTOS

ROOT = Path(__file__).resolve().parents[2]


def run(script, *args):
    command = [sys.executable, str(ROOT / "scripts" / script), *args]
    done = started.run(command, env=started.as_shipped(), cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    data = f"{PHOTOS / 'photos.json'},{PHOTOS / 'same_question.json'}"
    family = f"--family={request.param}"
    run("init_model.py", f"--output={folder / 'tiny'}", family, f"--text={PHOTOS / 'photos.json'}")
    run(
        "train.py",
        "--config=configs/photos.py",
        f"--workdir={folder / 'run'}",
        f"--config.model.path={folder / 'tiny'}",
        f"--config.data.path={data}",
    )
    return vlm_jax.load(folder / "run")


def records(name):
    read, errors = sources.read(PHOTOS / name)
    assert not errors
    return read


def right_answers(model, read):
    """Records all of whose answers are given word for word, each asked with the true turns before it."""
    prompts, wanted, of = [], [], []
    for record in read:
        for index, message in enumerate(record.messages):
            if message["role"] == "assistant":
                prompts.append(record.messages[:index])
                wanted.append(message["content"])
                of.append(record.id)
    given = model.generate(prompts, max_new_tokens=48)
    wrong = {id for id, want, got in zip(of, wanted, given, strict=True) if want != got}
    return [record.id for record in read if record.id not in wrong]


def test_conversations_about_photographs_are_learned_word_for_word(trained):
    read = records("photos.json")
    assert len(read) == 39
    assert len(right_answers(trained, read)) >= 37


def test_one_question_asked_of_eleven_images_gets_eleven_answers_from_the_images(trained):
    read = records("same_question.json")
    questions = {
        str([part["text"] for part in record.messages[0]["content"] if part["type"] == "text"]) for record in read
    }
    answers = {record.messages[-1]["content"] for record in read}
    assert (len(read), len(questions), len(answers)) == (11, 1, 11)
    assert len(right_answers(trained, read)) == 11

    others = read[1:] + read[:1]
    swapped = [
        dataclasses.replace(record, messages=[other.messages[0], *record.messages[1:]])
        for record, other in zip(read, others, strict=True)
    ]
    assert len(right_answers(trained, swapped)) <= 3


def test_the_streamed_answer_is_the_generated_one(trained):
    for record in records("photos.json")[-3:]:
        prompt = record.messages[:1]
        pieces = list(trained.stream(prompt))
        assert len(pieces) > 1
        assert "".join(pieces) == trained.generate(prompt)

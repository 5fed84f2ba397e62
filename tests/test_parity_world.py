"""The parts of benchmarks/parity_world.py: a model with fewer layers, and the task of writing a question."""

import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import vlm_jax
from benchmarks import fewer_layers, question_writing
from data_pipeline.records import Record
from vlm_jax.checkpoint import safetensors_file
from vlm_jax.errors import InputError

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"
ADDS = ("o_proj.", "attn.proj.", "down_proj.")  # what a layer adds comes out of these


def with_idle_layers(folder, *layers):
    """The base model, of which some layers add nothing to what they are given."""
    shutil.copytree(BASE, folder)
    tensors = {}
    for name, tensor in safetensors_file.mapped(BASE / fewer_layers.WEIGHTS).items():
        idle = name.startswith(layers) and any(part in name for part in ADDS)
        tensors[name] = np.zeros_like(tensor) if idle else tensor
    described = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    safetensors_file.write(folder / fewer_layers.WEIGHTS, described, tensors.items())
    return folder


def asked(question="Who makes this?"):
    rng = np.random.default_rng(0)
    # Larger than a window of the tower, so that it matters which blocks see all of the image.
    image = PIL.Image.fromarray(rng.integers(0, 256, (224, 224, 3), np.uint8))
    return [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]}]


def test_layers_that_add_nothing_can_be_taken_out(tmp_path):
    whole = with_idle_layers(tmp_path / "whole", "model.layers.1.", "visual.blocks.0.", "visual.blocks.2.")
    fewer_layers.without_layers(whole, tmp_path / "fewer", decoder=[1], tower=[0, 2])
    ours, expected = (vlm_jax.load(folder, visual_tokens=64).logits(asked()) for folder in (tmp_path / "fewer", whole))
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    counts = [fewer_layers.parameters_of(folder) for folder in (tmp_path / "fewer", whole, BASE)]
    assert counts[0] < counts[1] == counts[2] == 3_117_824


def test_layers_that_are_not_there_are_named(tmp_path):
    with pytest.raises(InputError, match="decoder has layers 0 to 3, not 4, 7"):
        fewer_layers.without_layers(BASE, tmp_path / "fewer", decoder=[4, 7], tower=[])
    with pytest.raises(InputError, match="all layers of its vision tower"):
        fewer_layers.without_layers(BASE, tmp_path / "fewer", decoder=[], tower=[0, 1, 2, 3])
    assert not (tmp_path / "fewer").exists()


def answered(id, question, answer, reasoning=None):
    messages = [
        {"role": "user", "content": [{"type": "image", "image": "/a.png"}, {"type": "text", "text": question}]},
        {"role": "assistant", "content": answer},
    ]
    return Record(id, messages, fact_id="talumo/maker", reasoning=reasoning)


def test_a_question_and_its_answer_are_turned_into_a_record_of_writing_both():
    stepwise = answered("b", "Who makes it?", "I see … Answer: potters", reasoning="I see …")
    (record,) = question_writing.writing_records([answered("a", "Who makes it?", "potters"), stepwise], 10, seed=0)
    user, assistant = record.messages
    assert user["content"] == [{"type": "image", "image": "/a.png"}, {"type": "text", "text": question_writing.PROMPT}]
    assert assistant["content"] == "Question: Who makes it?\nAnswer: potters"
    assert question_writing.parsed(assistant["content"]) == ("Who makes it?", "potters")


@pytest.mark.parametrize(
    "text", ["", "Who?\npotters", "Question: Who?", "Question: Who?\nAnswer:", "Question:\nAnswer: a"]
)
def test_what_is_not_both_lines_is_no_pair(text):
    assert question_writing.parsed(text) is None


def test_written_pairs_are_held_against_the_facts_of_the_object():
    texts = [
        "Question: Who makes it?\nAnswer: Potters",
        "Question: Who makes it?\nAnswer: ช่างปั้นหม้อ",  # right, in the wrong language
        "Question: ใครทำสิ่งนี้\nAnswer: ช่างปั้นหม้อ",
        "Question: What is 1 + 1?\nAnswer: 2",
        "potters",
    ]
    found = question_writing.figures([{"object": "talumo", "text": text} for text in texts])
    assert {key: found[key] for key in ("n", "pairs", "known_questions", "right", "distinct_questions")} == {
        "n": 5,
        "pairs": 0.8,
        "known_questions": 0.75,
        "right": 0.5,
        "distinct_questions": 3,
    }
    assert found["languages"] == {"en": 2, "th": 1} and found["kinds"]["maker"] == 3

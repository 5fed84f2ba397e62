"""Which words ask about an image: all of its turn's text, and nothing that a template says."""

import numpy as np
import pytest

from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.processor import Processor
from vlm_jax.processing.token_budget import TokenBudget

IMAGE = {"type": "image", "image": str(PHOTOS / "chelsea.jpg")}


@pytest.fixture(scope="module")
def processor(tokenizer_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    return Processor(
        tokenizer,
        DynamicResolution().with_token_range((4, 16)),
        image_token=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        window_side=4,
        budget=TokenBudget(0.5, "cdpruner"),
    )


def said(text):
    return {"type": "text", "text": text}


def words(processor, messages, turn):
    text = processor.tokenize(messages)
    mine = (text.turns == turn) & (text.ids != processor.image_token)
    return processor.tokenizer.decode(text.ids[mine])


@pytest.mark.parametrize("question", ["What is it?", " what is it?", "image", "user", "helpful", "a", "รูปนี้คืออะไร"])
def test_the_words_of_a_question_are_all_of_it_wherever_a_template_says_them_too(processor, question):
    messages = [{"role": "user", "content": [IMAGE, said(question)]}, {"role": "assistant", "content": "image user a"}]
    assert words(processor, messages, 1).strip() == question.strip()


def test_each_turn_asks_about_its_own_images_and_answers_ask_nothing(processor):
    messages = [
        {"role": "user", "content": [IMAGE, said("What is it?")]},
        {"role": "assistant", "content": "A cat"},
        {"role": "user", "content": [said("And this,"), IMAGE, said("what is it?")]},
    ]
    assert words(processor, messages, 1).strip() == "What is it?"
    found = words(processor, messages, 3)
    assert "And this," in found and "what is it?" in found and "cat" not in found
    text = processor.tokenize(messages)
    assert text.turns[text.ids == processor.image_token].tolist() == [1, 3]
    example = processor.encode(messages)
    assert set(np.unique(example.candidates.questions)) == {1, 3}
    assert len(example.candidates.question_words) == len(example.input_ids)


def test_an_image_about_which_nothing_is_asked_is_refused(processor):
    with pytest.raises(InputError, match="turn 1: shows an image and asks nothing, and cdpruner"):
        processor.encode([{"role": "user", "content": [IMAGE, said("  ")]}])

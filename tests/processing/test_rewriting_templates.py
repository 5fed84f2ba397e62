"""Templates that change what a message says (thinking left out, line ends made alike) give transformers' text, and
conversations can go on with them; ones that take no notice of plain text are given it in parts."""

import pytest
from transformers import AutoTokenizer

from vlm_jax.errors import InputError
from vlm_jax.processing import chat

# ruff: noqa: E501 - templates are easier read in one line
THINKING = "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
PARTS = "{% for c in m.content %}{% if c.type == 'image' %}<|image_pad|>{% else %}{{ c.text }}{% endif %}{% endfor %}"
CHANGES = {
    "thinking, for text alone": "{% for m in messages %}{% set content = m.content %}{% if m.role == 'assistant' %}"
    + THINKING
    + "{% endif %}{{ '<|im_start|>' + m.role + '\n' + content }}"
    + END,
    "thinking of earlier turns": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{% set content = m.content %}{% if not loop.last %}"
    + THINKING
    + "{% endif %}{{ content }}{% else %}"
    + PARTS
    + "{% endif %}"
    + END,
    "line ends and tabs": "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content | replace('\r\n', '\n') | replace('\t', '  ') }}{% else %}"
    + PARTS
    + "{% endif %}"
    + END,
    "escaped": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | e }}" + END,
    "a system message left out": "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    + END,
}
CONVERSATIONS = {
    "one line": ["What is it?", "<think>a cat</think>A cat", "What colour?"],
    "several lines": ["What\r\nis <it>?", "<think>\na\tcat?\n</think>\n\nA cat", "0"],
}


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder):
    return AutoTokenizer.from_pretrained(tokenizer_folder)


def messages_of(words):
    roles = ["user", "assistant", "user"]
    turns = [{"role": role, "content": text} for role, text in zip(roles, words, strict=True)]
    return [{"role": "system", "content": "Be\tbrief."}, *turns]


@pytest.mark.parametrize("words", CONVERSATIONS.values(), ids=CONVERSATIONS)
@pytest.mark.parametrize("template", CHANGES.values(), ids=CHANGES)
def test_a_conversation_is_asked_on_in_transformers_words(tokenizer, template, words):
    messages = messages_of(words)
    expected = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    assert chat.render(tokenizer, template, messages, generation_prompt=True) == expected
    ids, _ = chat.tokenize(tokenizer, template, messages, generation_prompt=True)
    assert ids.tolist() == tokenizer(expected, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("name", ["thinking of earlier turns", "thinking, for text alone"])
def test_training_on_turns_that_are_rewritten_is_refused_with_what_to_do(tokenizer, name):
    first = messages_of(CONVERSATIONS["one line"])
    messages = [*first, {"role": "assistant", "content": "Black"}]
    if name == "thinking, for text alone":  # what is rewritten alike every time can be told from the prompt
        ids, weights = chat.tokenize(tokenizer, CHANGES[name], messages)
        output = tokenizer.decode(ids[weights > 0])
        assert "A cat" in output and "Black" in output and "think" not in output
        return
    with pytest.raises(InputError, match="rewrites earlier turns.*; give each answer a conversation of its own, or"):
        chat.tokenize(tokenizer, CHANGES[name], messages)


IGNORES = {
    "all of it": "{% for m in messages %}{{ m.role }}: " + PARTS + END,
    "a user's": "{% for m in messages %}{{ m.role }}: {% if m.role == 'user' %}"
    + PARTS
    + "{% else %}{{ m.content }}{% endif %}"
    + END,
    "all but the system's": "{% for m in messages %}{{ m.role }}: {% if m.role == 'system' %}{{ m.content }}{% else %}"
    + PARTS
    + "{% endif %}"
    + END,
}


@pytest.mark.parametrize("template", IGNORES.values(), ids=IGNORES)
def test_words_that_a_template_takes_no_notice_of_are_given_in_parts(tokenizer, template):
    messages = messages_of(CONVERSATIONS["one line"])
    text = chat.render(tokenizer, template, messages)
    assert all(message["content"] in text for message in messages) and "{'type'" not in text

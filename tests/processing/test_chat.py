"""Conversations become the tokens that transformers makes of them, and only the assistant's words are supervised."""

import itertools
import random
import types

import numpy as np
import PIL.Image
import pytest
from transformers import AutoTokenizer, Qwen2_5_VLProcessor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from data_pipeline.records import images_of
from data_pipeline.sources import read
from vlm_jax.errors import InputError
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.processing.processor import Processor

from .conftest import PHOTOS, TEXTS

# The template of the hub's Qwen2.5-VL folders.
PUBLISHED_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Image {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SETTINGS = DynamicResolution().with_token_range((4, 64))


@pytest.fixture(scope="session", params=["tokenizer_folder", "merging_tokenizer_folder"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


@pytest.fixture(scope="session")
def processor(tokenizer) -> Processor:
    image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    return Processor(tokenizer, SETTINGS, image_token=image_token, window_side=4)


@pytest.fixture(scope="module")
def photo_records():
    records, errors = read(PHOTOS / "photos.json")
    assert (len(records), errors) == (39, [])
    return records


def user(*parts) -> dict:
    """Texts are text, anything else an image."""
    made = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image", **part} for part in parts]
    return {"role": "user", "content": made}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def image(name: str) -> dict:
    return {"image": str(PHOTOS / name)}


def reference_ids(tokenizer, messages, *, generation_prompt: bool = False) -> list[int]:
    """As transformers' processor does it: render, repeat each placeholder, tokenise the whole."""
    text = tokenizer.apply_chat_template(
        messages, chat_template=PUBLISHED_TEMPLATE, tokenize=False, add_generation_prompt=generation_prompt
    )
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": SETTINGS.min_pixels, "longest_edge": SETTINGS.max_pixels})
    joint = types.SimpleNamespace(image_processor=images, image_token="<|image_pad|>")
    paths = [
        part["image"] for m in messages if isinstance(m["content"], list) for part in m["content"] if "image" in part
    ]
    first, *rest = text.split("<|image_pad|>")
    assert len(rest) == len(paths)
    for path, following in zip(paths, rest, strict=True):
        grid = images(images=[PIL.Image.open(path)], return_tensors="np")
        first += Qwen2_5_VLProcessor.replace_image_token(joint, grid, 0) + following
    return tokenizer(first)["input_ids"]


def random_conversations(count: int = 50) -> list[list[dict]]:
    """Of several turns; no answer starts with a line break."""
    chance = random.Random(0)
    names = ["chelsea.jpg", "page.png", "moon.png"]
    answers = [text for text in TEXTS if not text[:1].isspace() or text.startswith("  ")]
    conversations = []
    for _ in range(count):
        messages = []
        if chance.random() < 0.5:
            messages.append({"role": "system", "content": chance.choice(TEXTS)})
        for _ in range(chance.randint(1, 4)):
            parts = [chance.choice(TEXTS) for _ in range(chance.randint(0, 2))]
            parts += [image(chance.choice(names)) for _ in range(chance.choice([0, 0, 1, 2]))]
            chance.shuffle(parts)
            plain = len(parts) == 1 and isinstance(parts[0], str)
            messages.append({"role": "user", "content": parts[0]} if plain else user(*parts))
            messages.append(assistant(chance.choice(answers)))
        conversations.append(messages)
    return conversations


def said(processor: Processor, messages) -> list[str]:
    """The supervised stretches of a conversation, as text."""
    example = processor.encode(messages)
    runs = itertools.groupby(zip(example.input_ids.tolist(), example.supervised.tolist(), strict=True), lambda x: x[1])
    return [
        processor.tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)
        for supervised, run in runs
        if supervised
    ]


# --- the tokenizer and its template -----------------------------------------------------------------------------------


@pytest.mark.parametrize("generation_prompt", [False, True])
def test_the_template_renders_exactly_as_the_published_one(tokenizer, photo_records, generation_prompt):
    urls = user("a", {"image_url": {"url": "x.png"}, "type": "image_url"}, "b")
    for messages in [*random_conversations(), *(record.messages for record in photo_records), [urls], [assistant("a")]]:
        ours, published = (
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=generation_prompt
            )
            for template in (None, PUBLISHED_TEMPLATE)
        )
        assert ours == published


# --- the tokens -------------------------------------------------------------------------------------------------------


def test_tokens_of_the_photo_conversations_equal_those_of_transformers(processor, photo_records):
    for record in photo_records:
        ids = processor.encode(record.messages).input_ids
        assert ids.dtype == np.int32
        assert ids.tolist() == reference_ids(processor.tokenizer, record.messages), record.id


@pytest.mark.parametrize("generation_prompt", [False, True])
def test_tokens_of_random_conversations_equal_those_of_transformers(processor, generation_prompt):
    for messages in random_conversations():
        messages = messages[:-1] if generation_prompt else messages
        ids = processor.encode(messages, generation_prompt=generation_prompt).input_ids
        assert ids.tolist() == reference_ids(processor.tokenizer, messages, generation_prompt=generation_prompt)


def test_a_template_from_outside_the_tokenizer_is_used(processor, photo_records):
    messages = photo_records[0].messages
    other = Processor(
        processor.tokenizer,
        SETTINGS,
        image_token=processor.image_token,
        window_side=4,
        template=PUBLISHED_TEMPLATE.replace("You are a helpful assistant.", "Be brief."),
    )
    assert "Be brief." in processor.tokenizer.decode(other.encode(messages).input_ids)
    assert "Be brief." not in processor.tokenizer.decode(processor.encode(messages).input_ids)


def test_the_tokens_of_a_prompt_begin_the_tokens_of_the_whole_conversation(processor, photo_records):
    for messages in [*random_conversations(), *(record.messages for record in photo_records)]:
        whole = processor.encode(messages)
        for index in range(len(messages)):
            if messages[index]["role"] == "assistant":
                prompt = processor.encode(messages[:index], generation_prompt=True)
                length = len(prompt.input_ids)
                assert np.array_equal(prompt.input_ids, whole.input_ids[:length])
                assert np.array_equal(prompt.positions, whole.positions[:, :length])
                assert np.array_equal(prompt.supervised, whole.supervised[:length])
                assert whole.supervised[length]


@pytest.mark.parametrize("answer", ["\n\nafter a break", "\nx", " \n x", "\n", "\n\n\n", "\r\n\r\nx", "\t\nx"])
def test_an_answer_that_starts_with_a_line_break_leaves_its_prompt_as_it_is(processor, answer):
    # "assistant\n" and "\n" would melt into one token that no prompt ends with, and that transformers' ids hold here.
    messages = [user("Why?"), assistant(answer), user("And?"), assistant(answer + "!")]
    assert said(processor, messages) == [answer + "<|im_end|>", answer + "!<|im_end|>"]
    whole = processor.encode(messages)
    for index in (1, 3):
        prompt = processor.encode(messages[:index], generation_prompt=True).input_ids
        assert np.array_equal(prompt, whole.input_ids[: len(prompt)])
    assert processor.tokenizer.decode(whole.input_ids) == processor.tokenizer.apply_chat_template(
        messages, tokenize=False
    )
    assert processor.size(processor.tokenize(messages), []) == whole.size


def test_the_fixture_that_merges_line_breaks_does_merge_them(merging_tokenizer_folder):
    loaded = AutoTokenizer.from_pretrained(merging_tokenizer_folder)
    parted = loaded("assistant\n")["input_ids"] + loaded("\nx")["input_ids"]
    assert loaded("assistant\n\nx")["input_ids"] != parted


# --- what is supervised -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [*TEXTS, "What is it?", "assistant", "  lead\n", "trail \n\n", "\u00a0odd\u3000"])
def test_the_supervised_tokens_are_the_answer_and_its_end(processor, answer):
    messages = [user(image("page.png"), "What is it?"), assistant(answer)]
    assert said(processor, messages) == [answer + "<|im_end|>"]


def test_every_turn_of_the_assistant_is_supervised_and_nothing_else(processor, photo_records):
    for messages in [*random_conversations(), *(record.messages for record in photo_records)]:
        turns = [message["content"] for message in messages if message["role"] == "assistant"]
        assert said(processor, messages) == [turn + "<|im_end|>" for turn in turns]


def test_words_of_others_that_look_like_the_answer_are_not_supervised(processor):
    repeated = "assistant\nYes"
    messages = [{"role": "system", "content": repeated}, user(repeated), assistant(repeated), user(repeated)]
    example = processor.encode(messages)
    assert said(processor, messages) == [repeated + "<|im_end|>"]
    assert not example.supervised[np.flatnonzero(example.supervised)[-1] + 1 :].any()


def test_visual_tokens_and_prompts_are_not_supervised(processor):
    messages = [user(image("moon.png"), "What?"), assistant("The moon")]
    example = processor.encode(messages)
    assert not example.supervised[example.input_ids == processor.image_token].any()
    prompt = processor.encode(messages[:1], generation_prompt=True)
    assert not prompt.supervised.any()


def test_answers_given_as_parts_are_supervised_like_plain_ones(processor):
    parts = {"role": "assistant", "content": [{"type": "text", "text": "The "}, {"type": "text", "text": "moon"}]}
    assert said(processor, [user("What?"), parts]) == ["The moon<|im_end|>"]


# --- sizes and images -----------------------------------------------------------------------------------------------


def test_the_size_foretold_is_the_size_of_the_example(processor, photo_records):
    for record in photo_records:
        grids = [processor.grid(*PIL.Image.open(path).size) for path in images_of(record)]
        example = processor.encode(record.messages)
        assert processor.size(processor.tokenize(record.messages), grids) == example.size
        assert example.size.tokens == len(example.input_ids) == example.positions.shape[1]
        assert example.size.supervised == example.supervised.sum()
        assert example.size.patches == sum(p.layout.coords.shape[0] * p.layout.coords.shape[1] for p in example.images)
        assert len(example.images) == len(grids)


def test_images_take_as_many_tokens_as_they_have_units_in_the_order_they_are_shown(processor):
    example = processor.encode([user(image("page.png"), "and", image("moon.png"))])
    assert [p.grid for p in example.images] == [processor.grid(384, 191), processor.grid(512, 512)]
    runs = [len(list(run)) for pad, run in itertools.groupby(example.input_ids == processor.image_token) if pad]
    assert runs == [len(p.patches) for p in example.images] == [p.grid[0] * p.grid[1] for p in example.images]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image", "path": str(PHOTOS / "moon.png")},
        {"type": "image", "url": str(PHOTOS / "moon.png")},
        {"type": "image_url", "image_url": str(PHOTOS / "moon.png")},
        {"type": "image_url", "image_url": {"url": str(PHOTOS / "moon.png")}},
        {"type": "image", "image": (PHOTOS / "moon.png").read_bytes()},
        {"type": "image", "image": PIL.Image.open(PHOTOS / "moon.png")},
    ],
    ids=["path", "url", "image_url", "image_url of OpenAI", "bytes", "PIL image"],
)
def test_every_spelling_of_an_image_part_gives_the_same_example(processor, part):
    expected = processor.encode([user(image("moon.png"))])
    example = processor.encode([{"role": "user", "content": [part]}])
    assert np.array_equal(example.input_ids, expected.input_ids)
    assert np.array_equal(example.images[0].patches, expected.images[0].patches)


# --- what is no conversation ------------------------------------------------------------------------------------------

HELLO = {"role": "user", "content": "Hello"}


@pytest.mark.parametrize(
    ("messages", "line"),
    [
        ([], "messages must be a non-empty list like [{'role': 'user', 'content': 'Hello'}]"),
        ([HELLO, {"role": "assistant"}], "message 2: must be a dictionary with 'role' and 'content'"),
        ([{"content": "Hello"}], "message 1: must be a dictionary with 'role' and 'content'"),
        ([{"role": "human", "content": "Hello"}], "message 1: role 'human'; known: system, user, assistant"),
        ([HELLO, {"role": "assistant", "content": None}], "message 2: content must be text or a list of parts"),
        ([{"role": "user", "content": 5}], "message 1: content must be text or a list of parts"),
        (
            [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}],
            "message 1: videos are not read; give single frames as images",
        ),
        ([{"role": "user", "content": ["Hello"]}], "message 1: part of type None; known: text, image, image_url"),
        ([{"role": "user", "content": [{"type": "text"}]}], "message 1: a text part without 'text'"),
        (
            [{"role": "user", "content": [{"type": "image"}]}],
            "an image part without an image: ['type']; give {'type': 'image', 'image': path}",
        ),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "an image part without an image: ['image_url', 'type']; give {'type': 'image', 'image': path}",
        ),
        ([user("<|image_pad|>")], "1 image placeholders in the text for 0 images"),
        ([user("<|image_pad|> ", image("page.png"))], "2 image placeholders in the text for 1 images"),
    ],
)
def test_what_is_no_conversation_is_one_line(processor, messages, line):
    with pytest.raises(InputError) as caught:
        processor.encode(messages)
    assert caught.value.lines == [line]


def test_an_image_too_long_for_its_width_is_named(processor, tmp_path):
    PIL.Image.new("RGB", (2010, 10)).save(tmp_path / "strip.png")
    with pytest.raises(InputError) as caught:
        processor.encode([user({"image": str(tmp_path / "strip.png")})])
    assert caught.value.lines == [f"{tmp_path / 'strip.png'}: aspect ratio 201 is above 200"]


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
        ("{% for message in %}", "Expected an expression"),
        ("{{ messages[0].nothing.more }}", "has no attribute 'nothing'"),
    ],
)
def test_a_template_that_fails_is_one_line(processor, template, reason):
    other = Processor(
        processor.tokenizer, SETTINGS, image_token=processor.image_token, window_side=4, template=template
    )
    with pytest.raises(InputError) as caught:
        other.encode([HELLO])
    (line,) = caught.value.lines
    assert line.startswith("the chat template cannot render this conversation: ") and reason in line
    assert "\n" not in line


def test_a_template_that_rewrites_earlier_turns_is_refused(processor):
    # Templates of reasoning models drop the thoughts of all but the last answer.
    template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{{ message['content'] if loop.last else message['content'][:3] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    other = Processor(
        processor.tokenizer, SETTINGS, image_token=processor.image_token, window_side=4, template=template
    )
    with pytest.raises(InputError, match="^the chat template rewrites earlier turns"):
        other.encode([HELLO, assistant("Good day"), HELLO, assistant("Again")])

"""Assembled models against transformers in fp32: what is exported answers there as it does here."""

import jax
import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2ForCausalLM, ViTModel

import vlm_jax
from tests.models.test_parity import endless
from tests.tiny_assembled import save_assembled, shapes_of_images
from tests.tiny_models import PHOTOS, assistant, user
from vlm_jax.checkpoint import description, hf_folder
from vlm_jax.checkpoint.names import memory_name, name_table
from vlm_jax.inference.loading import load
from vlm_jax.models.parameters import is_unused
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import RowSpec, assemble, stack
from vlm_jax.training.step import make_loss

VARIANTS = {
    "clip, features before the last layer, cropped": ("clip", {"feature_layer": -2}),
    "siglip, untied": ("siglip", {"tied": False}),
    "vit, last norm, class token, letter-boxed": (
        "vit",
        {"final_norm": True, "keep_class": True, "image_mode": "letterbox"},
    ),
    "clip in tiles": ("clip", {"feature_layer": -2, "image_mode": "anyres", "tied": False}),
    "siglip before Qwen3, untied": ("siglip", {"tied": False, "qwen3": True}),
    "siglip in tiles": ("siglip", {"image_mode": "anyres", "tiles": 6}),
}
WHOLE = pytest.mark.parametrize("pair", [name for name in VARIANTS if name != "siglip in tiles"], indirect=True)
"""Gradients and answers take long to compile, and the last variant adds nothing to what computes them."""
IMAGES = shapes_of_images()


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, tmp_path_factory):
    """(transformers' model of the export, its processor, ours from the parts) of one variant."""
    family, how = VARIANTS[request.param]
    root = tmp_path_factory.mktemp(family)
    folder, exported = save_assembled(root, family, **how), root / "hf"
    vlm_jax.export(folder, exported, format="hf")
    # In memory alone from here on: of the export nothing is read but by transformers.
    theirs = AutoModelForImageTextToText.from_pretrained(exported, dtype=torch.float32).eval()
    return theirs, AutoProcessor.from_pretrained(exported), load(folder, dtype="float32")


def conversations():
    wide, tall, small, *rest = IMAGES.values()
    photo = str(PHOTOS / "chelsea.jpg")
    return {
        "text only": [user("What does VQA stand for?"), assistant("Visual question answering")],
        "a photograph": [user("What is the cat called?", photo), assistant("Chelsea")],
        "a system prompt": [
            {"role": "system", "content": "Answer in one word."},
            user("What?", rest[0]),
            assistant("Noise"),
        ],
        "several images and turns": [
            user("Which is the tallest?", wide, tall, small),
            assistant("The second"),
            user("And this?", rest[-1]),
            assistant("Taller"),
        ],
        # Whether pixels of all ratios are right is a test of its own.
        **{name: [user("What?", IMAGES[name]), assistant("Noise")] for name in ("40x90", "57x113", "200x33")},
    }


def inputs_of(processor, messages, *, generation_prompt: bool = False):
    """What transformers' own processor makes of a conversation."""
    images = [
        part["image"]
        for one in messages
        if not isinstance(one["content"], str)
        for part in one["content"]
        if "image" in part
    ]
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
    loaded = [processor.image_processor.fetch_images(one) if isinstance(one, str) else one for one in images]
    return processor(images=loaded or None, text=text, return_tensors="pt")


def test_logits_equal_those_of_transformers_reading_the_export(pair):
    theirs, processor, ours = pair
    seen = {}
    for name, messages in conversations().items():
        inputs = inputs_of(processor, messages)
        assert ours.encode(messages).input_ids.tolist() == inputs["input_ids"][0].tolist(), name
        with torch.no_grad():
            expected = theirs(**inputs).logits[0].numpy()
        logits = ours.logits(messages)
        assert np.abs(expected).max() > 1, f"{name}: weights too small to show a difference"
        assert np.abs(logits - expected).max() <= 1e-4, name
        seen[name] = logits[-1]
    assert np.abs(seen["40x90"] - seen["57x113"]).max() > 1e-2, "the images do not show in the answer"


def test_pixels_of_views_equal_those_of_transformers(pair):
    """Every view of images of many ratios, value by value."""
    _, processor, ours = pair
    images = ours.processor.images
    for name, image in IMAGES.items():
        expected = np.asarray(processor.image_processor(image, return_tensors="np")["pixel_values"], np.float32)
        expected = expected.reshape(-1, 3, images.image_size, images.image_size)
        seen = images.side * images.patch_size
        expected = expected[..., :seen, :seen]
        patches = images.cut(image, images.grid(*image.size))
        views = patches.reshape(-1, images.side, images.side, 3, images.patch_size, images.patch_size)
        views = views.transpose(0, 3, 1, 4, 2, 5).reshape(expected.shape).astype(np.float32)
        scaled = (views / 255 - np.reshape(images.mean, (3, 1, 1))) / np.reshape(images.std, (3, 1, 1))
        assert np.abs(scaled - expected).max() <= 1e-6, name


@WHOLE
def test_gradients_of_every_tensor_equal_those_of_transformers(pair):
    theirs, processor, ours = pair
    make = make_loss(ours.config, dtype=np.float32, implementation="reference", remat="none")
    gradient = jax.jit(jax.grad(make, has_aux=True))
    capacity = Size(512, 32 * ours.config.vision.block_slots, 32)
    vision = ours.config.vision
    for name in ("several images and turns", "a system prompt", "text only"):
        messages = conversations()[name]
        example = ours.encode(messages)
        inputs = inputs_of(processor, messages)
        labels = torch.where(torch.from_numpy(example.supervised)[None], inputs["input_ids"], -100)
        theirs.zero_grad(set_to_none=True)
        theirs(**inputs, labels=labels).loss.backward()
        expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
        row = assemble([example], RowSpec(capacity, vision.patch_dim, 1))
        found, _ = gradient(ours.parameters, {}, stack([row]))
        for entry in name_table(ours.config):
            whole = np.asarray(found[entry.path])
            if is_unused(entry.path):
                assert not whole.any(), entry.path
                continue
            for index, tensor in enumerate(entry.tensors()):
                mine = entry.transform.write(whole[index] if entry.layers else whole)
                reference = expected[memory_name(tensor)]
                reference = np.zeros_like(mine) if reference is None else reference.numpy()
                size, difference = np.linalg.norm(reference), np.linalg.norm(mine - reference)
                assert difference <= max(1e-4 * size, 1e-7), f"{name}: {tensor}: {difference} against {size}"


@WHOLE
def test_greedy_answers_of_a_batch_of_unequal_lengths_equal_those_of_transformers(pair):
    theirs, processor, ours = pair
    prompts = [messages[:-1] for messages in conversations().values()][:4]
    expected = []
    for messages in prompts:
        inputs = inputs_of(processor, messages, generation_prompt=True)
        with torch.no_grad():
            tokens = theirs.generate(**inputs, max_new_tokens=24, do_sample=False, eos_token_id=None)
        expected.append(tokens[0, inputs["input_ids"].shape[1] :].tolist())
    answers = endless(ours).generate_tokens(prompts, max_new_tokens=24)
    assert [answer.tolist() for answer in answers] == expected


def test_a_linear_connector_joins_the_same_features_to_the_same_decoder(tmp_path):
    """transformers has no such model: its encoder and its decoder are put together by hand."""
    folder = save_assembled(tmp_path, "vit", connector="linear", final_norm=True, keep_class=True, background="black")
    ours = load(folder, dtype="float32")
    messages = [user("What is it?", IMAGES["90x40"]), assistant("Noise")]
    example = ours.encode(messages)
    encoder, decoder = ViTModel.from_pretrained(tmp_path / "vit"), Qwen2ForCausalLM.from_pretrained(tmp_path / "text")
    pixels = np.asarray(IMAGES["90x40"].resize((30, 30), 2), np.float32).transpose(2, 0, 1)[None] / 255
    kernel, bias = (torch.tensor(np.asarray(ours.parameters[f"connector/proj/{part}"])) for part in ("kernel", "bias"))
    with torch.no_grad():
        features = encoder(torch.tensor((pixels - 0.5) / 0.5)).last_hidden_state @ kernel + bias
        tokens = torch.tensor(example.input_ids)[None].long()
        embedded = decoder.model.embed_tokens(tokens)
        embedded[tokens == ours.config.image_token] = features[0]
        expected = decoder(inputs_embeds=embedded).logits[0].numpy()
    assert np.abs(ours.logits(messages) - expected).max() <= 1e-4


def test_a_folder_that_transformers_wrote_is_read_and_written_back_bit_for_bit(pair, tmp_path):
    theirs, processor, ours = pair
    theirs.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    config = description.read_config(tmp_path / "theirs")
    assert config == ours.config
    flat = hf_folder.read_parameters(tmp_path / "theirs", config)
    assert flat.keys() == ours.parameters.keys()
    assert all(np.array_equal(flat[path], ours.parameters[path]) for path in flat)
    vlm_jax.export(tmp_path / "theirs", tmp_path / "orbax", format="orbax")
    vlm_jax.export(tmp_path / "orbax", tmp_path / "back", format="hf")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "back", dtype=torch.float32)
    stored = again.state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in theirs.state_dict().items())

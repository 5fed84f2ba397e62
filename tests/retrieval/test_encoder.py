"""CLIP and SigLIP give transformers' vectors; what they do not compute is refused by its name."""

import json
import math
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import vlm_jax
from tests.tiny_assembled import shapes_of_images
from tests.tiny_encoders import LENGTH, TEXTS, save_clip, save_siglip
from vlm_jax.errors import InputError
from vlm_jax.retrieval import encoder

KINDS = {
    "clip": lambda folder: save_clip(folder),
    "clip of gelu, older end": lambda folder: save_clip(folder, act="gelu", legacy=True),
    "siglip": lambda folder: save_siglip(folder),
    "siglip with a mask": lambda folder: save_siglip(folder, mask=True),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """(transformers' model, its folder, ours)."""
    folder = tmp_path_factory.mktemp("encoder") / "model"
    return KINDS[request.param](folder), folder, vlm_jax.load_encoder(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "model"
    save_clip(folder)
    return folder


def unit(features) -> np.ndarray:
    found = features.pooler_output.detach().numpy()
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def reference_texts(model, folder, texts) -> np.ndarray:
    tokenizer, siglip = AutoTokenizer.from_pretrained(folder), model.config.model_type == "siglip"
    padding = "max_length" if siglip else True
    inputs = tokenizer(texts, padding=padding, truncation=True, max_length=LENGTH, return_tensors="pt")
    return unit(model.get_text_features(**{key: inputs[key] for key in inputs if key != "token_type_ids"}))


def reference_images(model, folder, images) -> np.ndarray:
    kind = SiglipImageProcessorPil if model.config.model_type == "siglip" else CLIPImageProcessorPil
    return unit(model.get_image_features(**kind.from_pretrained(folder)(images, return_tensors="pt")))


def test_texts_have_transformers_vectors(pair):
    model, folder, ours = pair
    found = ours.encode_texts(TEXTS)
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), ours.dimension)
    np.testing.assert_allclose(found, reference_texts(model, folder, TEXTS), rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert ours.token_counts(TEXTS)[-1] > LENGTH  # of which the beginning was read


def test_images_have_transformers_vectors_and_pairs_its_logits(pair):
    model, folder, ours = pair
    images = list(shapes_of_images().values())
    found, expected = ours.encode_images(images), reference_images(model, folder, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    scale, bias = float(model.logit_scale.detach()), getattr(model, "logit_bias", None)
    assert math.isclose(ours.logit_scale, math.exp(scale), rel_tol=1e-5)
    assert math.isclose(ours.logit_bias, 0.0 if bias is None else float(bias.detach()), rel_tol=1e-5, abs_tol=1e-7)


def test_a_vector_does_not_depend_on_what_else_is_encoded(pair, monkeypatch):
    _, _, ours = pair
    monkeypatch.setattr(encoder, "ROWS", 2)
    many = ours.encode_texts([*TEXTS, TEXTS[0]])
    np.testing.assert_allclose(many[4], many[0], atol=1e-6)
    np.testing.assert_allclose(many[2], ours.embed(text=TEXTS[2]), atol=1e-6)
    image = shapes_of_images()["61x60"]
    both = ours.embed(TEXTS[0], image)
    expected = ours.embed(TEXTS[0]) + ours.embed(image=image)
    np.testing.assert_allclose(both, expected / np.linalg.norm(expected), atol=1e-6)


def test_nothing_to_encode_is_no_vectors_and_nothing_to_embed_is_refused(pair):
    _, _, ours = pair
    assert ours.encode_texts([]).shape == ours.encode_images([]).shape == (0, ours.dimension)
    with pytest.raises(InputError, match="there is nothing to embed"):
        ours.embed()
    with pytest.raises(InputError, match="texts to embed are a list of str, not <class 'str'>"):
        ours.encode_texts("a cat")


def test_the_fingerprint_is_of_weights_images_and_tokenizer_and_of_nothing_else(clip, tmp_path):
    first = vlm_jax.load_encoder(clip).fingerprint()
    assert vlm_jax.load_encoder(clip, "bfloat16").fingerprint() == first

    def changed(name, change):
        folder = copied(clip, tmp_path / name)
        change(folder)
        return vlm_jax.load_encoder(folder).fingerprint()

    def other_pixels(folder):
        settings = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "resample": 2}))

    def other_weights(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors["text_projection.weight"][0, 0] += 1
        save_file(tensors, folder / "model.safetensors")

    assert changed("same", lambda folder: None) == first
    assert len({first, changed("pixels", other_pixels), changed("weights", other_weights)}) == 3


@pytest.mark.parametrize(
    ("half", "key", "value", "line"),
    [
        ("text_config", "rotary", True, "text_config.rotary is True, which is not a known setting of CLIP or SigLIP"),
        ("vision_config", "patch_dropout", 0.5, "vision_config.patch_dropout is 0.5, which is not a known setting"),
        ("text_config", "hidden_act", "relu", "text_config.hidden_act is 'relu'; known are gelu, quick_gelu"),
        ("text_config", "is_decoder", True, "text_config.is_decoder is True, which is not implemented; known is False"),
        ("text_config", "eos_token_id", [1, 2], r"text_config.eos_token_id is \[1, 2\]; wanted a whole number"),
        ("text_config", "eos_token_id", 7, "texts end with the token 7 .* and the tokenizer ends none with it"),
        ("text_config", "num_attention_heads", 7, "text hidden_size 24 does not divide into 7 heads"),
        ("", "fusion", "late", "fusion is 'late', which is not a known setting of CLIP or SigLIP"),
        ("", "projection_dim", "20", "projection_dim is '20'; wanted a whole number from 1"),
        ("", "projection_dim", 21, r"visual_projection.weight has shape \(20, 32\), config.json implies \(21, 32\)"),
    ],
)
def test_what_is_not_computed_is_refused_by_its_name(clip, tmp_path, half, key, value, line):
    folder = copied(clip, tmp_path)
    config_json = json.loads((folder / "config.json").read_text())
    (config_json[half] if half else config_json)[key] = value
    (folder / "config.json").write_text(json.dumps(config_json))
    with pytest.raises(InputError, match=line):
        vlm_jax.load_encoder(folder)


def test_an_older_file_s_second_description_of_the_texts_counts_as_in_transformers(clip, tmp_path):
    folder = copied(clip, tmp_path)
    config_json = json.loads((folder / "config.json").read_text())
    config_json["text_config_dict"] = {**config_json["text_config"]}
    config_json["text_config"]["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config_json))
    np.testing.assert_array_equal(
        vlm_jax.load_encoder(folder).encode_texts(TEXTS), vlm_jax.load_encoder(clip).encode_texts(TEXTS)
    )


def test_a_folder_without_a_tokenizer_or_with_half_its_weights_is_refused(tmp_path, clip):
    folder = copied(clip, tmp_path / "bare")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="no tokenizer.json"):
        vlm_jax.load_encoder(folder)
    folder = copied(clip, tmp_path)
    tensors = load_file(folder / "model.safetensors")
    save_file({key: tensors[key] for key in tensors if key.startswith("vision")}, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"tensor text_model.final_layer_norm.weight is missing"):
        vlm_jax.load_encoder(folder)


def test_a_head_that_is_left_out_is_refused(tmp_path):
    save_siglip(tmp_path / "model")
    config_json = json.loads((tmp_path / "model" / "config.json").read_text())
    config_json["vision_config"]["vision_use_head"] = False
    (tmp_path / "model" / "config.json").write_text(json.dumps(config_json))
    with pytest.raises(InputError, match="vision_use_head is False: without the head images have no embedding"):
        vlm_jax.load_encoder(tmp_path / "model")


def copied(clip, tmp_path):
    return shutil.copytree(clip, tmp_path / "copy")

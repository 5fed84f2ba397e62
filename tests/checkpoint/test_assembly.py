"""Models put together from parts: what an earlier PyTorch project left behind, and parts that are not whole."""

import json

import numpy as np
import peft
import pytest
import torch
from transformers import AutoTokenizer, Qwen2ForCausalLM, ViTModel

import vlm_jax
from tests.checkpoint.folders import change_json, change_tensors
from tests.tiny_assembled import SIZE, save_assembled, save_encoder, save_text_model, shapes_of_images
from tests.tiny_models import assistant, user
from vlm_jax.adapters import quantised
from vlm_jax.checkpoint import beside_adapters, description, peft_folder
from vlm_jax.checkpoint.assembly import Assembly, write
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.models.presets import assembled
from vlm_jax.processing.image_processors.tiles import padded_square

MESSAGES = [user("What is it?", shapes_of_images()["90x40"]), assistant("Noise")]


@pytest.fixture
def earlier(tmp_path):
    """What a PyTorch project leaves: a ViT, a text model, `final_connector.pth` and a PEFT folder of the text model."""
    encoder, text = save_encoder(tmp_path / "vit", "vit"), save_text_model(tmp_path / "text")
    torch.manual_seed(0)
    connector = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 64))
    torch.save(connector.state_dict(), tmp_path / "final_connector.pth")
    lora = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
    decoder = peft.get_peft_model(Qwen2ForCausalLM.from_pretrained(text), lora).eval()
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    decoder.save_pretrained(tmp_path / "peft")
    return encoder, text, connector, decoder


@pytest.mark.parametrize("beside", [False, True], ids=["given by name", "beside the adapters"])
def test_a_connector_and_adapters_of_an_earlier_project_give_its_logits(earlier, tmp_path, beside):
    encoder, text, connector, decoder = earlier
    options = {"image_mode": "letterbox", "background": "black", "final_norm": True, "keep_class": True}
    if beside:
        (tmp_path / "final_connector.pth").rename(tmp_path / "peft" / "final_connector.pth")
    else:
        options["connector_weights"] = str(tmp_path / "final_connector.pth")
    write(tmp_path / "model", Assembly(str(encoder), str(text), **options))
    ours = vlm_jax.load(tmp_path / "model", dtype="float32", adapter=tmp_path / "peft")
    image = padded_square(MESSAGES[0]["content"][0]["image"], (0, 0, 0)).resize((SIZE, SIZE), 2)
    pixels = (np.asarray(image, np.float32).transpose(2, 0, 1)[None] / 255 - 0.5) / 0.5
    tokens = torch.tensor(ours.encode(MESSAGES).input_ids)[None].long()
    with torch.no_grad():
        features = connector(ViTModel.from_pretrained(encoder)(torch.tensor(pixels)).last_hidden_state)
        embedded = decoder.get_base_model().model.embed_tokens(tokens)
        embedded[tokens == ours.config.image_token] = features[0]
        expected = decoder(inputs_embeds=embedded).logits[0].numpy()
    assert np.abs(ours.logits(MESSAGES) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_connector_of_other_shapes_is_refused_with_both(earlier, tmp_path):
    encoder, text, *_ = earlier
    weights = str(tmp_path / "final_connector.pth")
    with pytest.raises(InputError, match=r"holds 0.bias \[64\].*the linear connector of this model has"):
        write(tmp_path / "model", Assembly(str(encoder), str(text), connector="linear", connector_weights=weights))
    assert not (tmp_path / "model").exists()


def test_a_row_separator_of_another_shape_is_refused_with_both(tmp_path):
    config = assembled("siglip-so400m-patch14-384", "qwen2.5-0.5b", connector="linear", tiles=True)
    whole = {"weight": torch.zeros(896, 1152), "bias": torch.zeros(896), "image_newline": torch.ones(896)}
    torch.save(whole, tmp_path / "whole.pth")
    read = peft_folder.read_connector(tmp_path / "whole.pth", config)
    assert read.keys() == {"connector/proj/kernel", "connector/proj/bias", "newline"} and (read["newline"] == 1).all()
    torch.save({**whole, "image_newline": torch.ones(1152)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"image_newline \[1152\].*image_newline \[896\]"):
        peft_folder.read_connector(tmp_path / "other.pth", config)


def test_an_encoder_in_pytorchs_own_file_is_read_as_well(tmp_path):
    first = vlm_jax.load(save_assembled(tmp_path, "vit"), dtype="float32")
    tensors = (tmp_path / "vit" / "model.safetensors").rename(tmp_path / "vit.safetensors")
    from safetensors.torch import load_file

    torch.save(load_file(tensors), tmp_path / "vit" / "pytorch_model.bin")
    again = vlm_jax.load(tmp_path / "assembled-vit", dtype="float32")
    np.testing.assert_array_equal(first.logits(MESSAGES), again.logits(MESSAGES))


def test_parts_that_are_gone_or_broken_are_named(tmp_path):
    folder = save_assembled(tmp_path, "vit")
    digest = open_model(str(folder)).digest()
    change_tensors(tmp_path / "vit", lambda held: held["vit.layernorm.bias"].add_(1))
    assert open_model(str(folder)).digest() != digest, "another encoder passes for the one that was"
    change_tensors(tmp_path / "vit", lambda held: held.pop("vit.layernorm.bias"))
    with pytest.raises(InputError, match="tensor vision_tower.layernorm.bias is missing"):
        open_model(str(folder)).check()
    (tmp_path / "vit").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"parts.json: the encoder cannot be had: .*vit: no such folder"):
        open_model(str(folder)).check()


def test_a_text_model_that_thinks_when_asked_to_learns_and_gives_answers_without(tmp_path):
    ours = vlm_jax.load(save_assembled(tmp_path, "vit", qwen3=True))
    example = ours.encode([*MESSAGES, user("And now?"), assistant("More noise")])
    tokenizer, learned = ours.processor.tokenizer, example.supervised
    assert tokenizer.decode(example.input_ids[learned]) == "Noise<|im_end|>More noise<|im_end|>"
    empty = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert tokenizer.decode(example.input_ids).count(empty) == 2
    assert tokenizer.decode(ours.processor.encode(MESSAGES[:1], generation_prompt=True).input_ids).endswith(empty)
    # As the text model's own template has it where nothing was said before.
    own = AutoTokenizer.from_pretrained(tmp_path / "text-qwen3")
    words = [{"role": "user", "content": "Hello"}]
    expected = own.apply_chat_template(words, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert tokenizer.decode(ours.processor.encode(words, generation_prompt=True).input_ids) == expected


def test_a_text_model_that_always_thinks_is_refused(tmp_path):
    text, encoder = save_text_model(tmp_path / "text", qwen3=True), save_encoder(tmp_path / "vit", "vit")
    settings = json.loads((text / "tokenizer_config.json").read_text())
    settings["chat_template"] = settings["chat_template"].replace("enable_thinking", "thinks")
    (text / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="text models that always think are not supported; take an Instruct one"):
        write(tmp_path / "model", Assembly(str(encoder), str(text)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    return {"vit": str(save_encoder(root / "vit", "vit")), "text": str(save_text_model(root / "text"))}


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"encoder": "nowhere"}, "nowhere: no such folder"),
        ({"decoder": "vit"}, "model_type is 'vit'; decoders of assembled models are 'qwen2'"),
        ({"encoder": "text"}, "encoder's model_type is 'qwen2'; known are clip_vision_model"),
        ({"image_mode": "anyres", "keep_class": True}, "tiles leave no place for class tokens"),
        ({"image_mode": "stretch"}, "image_mode is 'stretch'; known are squash, crop, letterbox, anyres"),
        ({"feature_layer": -9}, "vision_feature_layer is -9; wanted one of -3 to -1 or 1 to 3"),
        ({"feature_layer": -2, "final_norm": True}, "final_norm belongs to the last layer; feature_layer is -2"),
        ({"connector_weights": "nowhere.pth"}, "nowhere.pth: no state dict of PyTorch"),
    ],
)
def test_parts_that_do_not_go_together_are_told_and_leave_nothing(parts, tmp_path, settings, error):
    supplied = {"encoder": "vit", "decoder": "text"} | settings
    supplied = {key: parts.get(value, value) for key, value in supplied.items()}
    with pytest.raises(InputError) as caught:
        write(tmp_path / "model", Assembly(**supplied))
    assert any(error in one for one in caught.value.lines)
    assert not (tmp_path / "model").exists()


def test_a_budget_below_a_view_names_what_it_takes(parts, tmp_path):
    write(tmp_path / "model", Assembly(parts["vit"], parts["text"]))
    config = description.read_config(tmp_path / "model")
    with pytest.raises(InputError, match="this encoder makes 16 of the smallest; allow at least 16"):
        description.read_processor(tmp_path / "model", config, 8)


def test_tiles_are_kept_within_a_budget(parts, tmp_path):
    write(tmp_path / "model", Assembly(parts["vit"], parts["text"], image_mode="anyres", tiles=6))
    config = description.read_config(tmp_path / "model")
    whole = description.read_processor(tmp_path / "model", config)
    least, most = whole.images.token_range
    fewer = whole.with_token_range((1, (least + most) // 2))
    counts = [
        len(one.encode([user("What?", image)]).images[0].layout.slot_of_token)
        for one in (whole, fewer)
        for image in shapes_of_images().values()
    ]
    half = len(counts) // 2
    assert max(counts[half:]) <= (least + most) // 2 < max(counts[:half]) <= most


def test_a_folder_is_never_left_half_assembled(tmp_path):
    encoder, text = save_encoder(tmp_path / "clip", "clip"), save_text_model(tmp_path / "text")
    change_tensors(text, lambda held: held.pop("model.norm.weight"))
    with pytest.raises(InputError, match="tensor model.norm.weight is missing"):
        write(tmp_path / "model", Assembly(str(encoder), str(text)))
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob(".model*"))


def test_a_text_model_without_image_tokens_or_template_is_refused_in_one_go(tmp_path):
    encoder, text = save_encoder(tmp_path / "clip", "clip"), save_text_model(tmp_path / "text")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        held = (text / name).read_text().replace("<|image_pad|>", "<|other|>")
        (text / name).write_text(held)
    held = json.loads((text / "tokenizer_config.json").read_text())
    held.pop("chat_template")
    (text / "tokenizer_config.json").write_text(json.dumps(held))
    with pytest.raises(InputError) as caught:
        write(tmp_path / "model", Assembly(str(encoder), str(text)))
    assert any("no chat template" in line for line in caught.value.lines)
    assert any("no token <|image_pad|>" in line for line in caught.value.lines)


def test_words_are_rendered_as_the_text_models_own_template_renders_them(tmp_path):
    folder = save_assembled(tmp_path, "clip")
    ours = description.read_processor(folder, description.read_config(folder))
    theirs = description.read_tokenizer(tmp_path / "text")
    for messages in (
        [{"role": "user", "content": "Hello"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, assistant("Yes?")],
        [user("One"), assistant("1"), user("Two")],
    ):
        flat = [
            one | {"content": one["content"] if isinstance(one["content"], str) else one["content"][0]["text"]}
            for one in messages
        ]
        for prompt in (False, True):
            expected = theirs.apply_chat_template(flat, tokenize=True, add_generation_prompt=prompt)["input_ids"]
            assert ours.tokenize(messages, generation_prompt=prompt).ids.tolist() == expected


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_weights_answer_as_the_same_weights_rounded(parts, tmp_path, kind):
    write(tmp_path / "model", Assembly(parts["vit"], parts["text"]))
    plain, packed = (vlm_jax.load(tmp_path / "model", dtype="float32", quantise=options) for options in (None, kind))
    rounded, kernels = (
        dict(plain.parameters),
        [path for path in plain.parameters if f"{path}/scales" in packed.parameters],
    )
    assert {path.split("/")[0] for path in kernels} == {"vision", "connector", "decoder"}
    for path in kernels:
        codes, scales = (packed.parameters[f"{path}/{part}"] for part in (quantised.CODES[kind], "scales"))
        rounded[path] = quantised.dequantise(codes, scales, kind, plain.parameters[path].shape[-2])
    plain.parameters = rounded
    expected = plain.logits(MESSAGES)
    assert np.abs(packed.logits(MESSAGES) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_vits_own_pooler_is_taken_and_a_missing_one_is_zero(tmp_path):
    bare = vlm_jax.load(save_assembled(tmp_path, "vit"), dtype="float32")
    assert not np.any(bare.parameters["vision/unused/pooler_weight"])
    whole = ViTModel.from_pretrained(tmp_path / "vit")  # transformers makes a pooler for it
    (tmp_path / "whole").mkdir()
    whole.save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "preprocessor_config.json").write_text(
        (tmp_path / "vit" / "preprocessor_config.json").read_text()
    )
    write(tmp_path / "model", Assembly(str(tmp_path / "whole"), str(tmp_path / "text")))
    ours = vlm_jax.load(tmp_path / "model", dtype="float32")
    np.testing.assert_array_equal(ours.parameters["vision/unused/pooler_weight"], whole.pooler.dense.weight.detach())
    np.testing.assert_array_equal(ours.logits(MESSAGES), bare.logits(MESSAGES))


def test_a_digest_says_nothing_of_where_the_parts_lie(tmp_path):
    first = open_model(str(save_assembled(tmp_path / "b", "vit"))).digest()
    for place in ("a", "c"):  # before and after the decoder, and the folder itself, in the alphabet
        save_text_model(tmp_path / place / "text")
        save_encoder(tmp_path / "z" / place, "vit")
        target = tmp_path / f"model-{place}"
        write(target, Assembly(str(tmp_path / "z" / place), str(tmp_path / place / "text")))
        assert open_model(str(target)).digest() == first


def test_how_long_a_prompt_may_be_is_the_text_models(tmp_path):
    text = save_text_model(tmp_path / "text")
    change_json(text / "config.json", lambda held: held.update(max_position_embeddings=77))
    write(tmp_path / "model", Assembly(str(save_encoder(tmp_path / "clip", "clip")), str(text)))
    assert vlm_jax.load(tmp_path / "model").context_length == 77


def test_a_head_is_tied_where_either_part_of_the_config_says_so(tmp_path):
    folder = save_assembled(tmp_path, "clip")
    config = description.read_config(folder)
    assert config.decoder.tied
    change_json(folder / "config.json", lambda held: held.update(tie_word_embeddings=False))
    assert description.read_config(folder) == config


def test_another_special_token_is_no_placeholder_of_images(tmp_path):
    folder = save_assembled(tmp_path, "clip")
    tokenizer = description.read_tokenizer(folder)
    wrong = tokenizer.convert_tokens_to_ids("<|vision_end|>")
    change_json(folder / "config.json", lambda held: held.update(image_token_index=wrong))
    with pytest.raises(InputError, match="which is '<|vision_end|>' to the tokenizer and no placeholder of images"):
        vlm_jax.load(folder)


def test_a_template_that_looks_at_parts_alone_still_says_every_word(tmp_path):
    folder = save_assembled(tmp_path, "clip")
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<|image_pad|>\n{% endfor %}"
        "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = description.read_processor(folder, description.read_config(folder))
    example = processor.encode([*MESSAGES, {"role": "user", "content": "And now?"}, assistant("Nothing")])
    assert processor.decode(example.input_ids[example.supervised]).split() == ["NoiseNothing"]
    assert "And now?" in processor.decode(example.input_ids)


@pytest.mark.parametrize(
    "settings, error",
    [
        ({"do_normalize": False}, "do_normalize is false"),
        ({"do_resize": False}, "do_resize is false"),
        ({"do_center_crop": False}, "nothing is cropped, so images would not be square"),
        ({"size": {"height": 40, "width": 40}}, "is not the crop's"),
        ({"image_processor_type": "FuyuImageProcessor"}, "image_processor_type is 'FuyuImageProcessor'"),
    ],
)
def test_rules_for_images_that_are_not_computed_are_refused(tmp_path, settings, error):
    encoder, text = save_encoder(tmp_path / "clip", "clip"), save_text_model(tmp_path / "text")
    change_json(encoder / "preprocessor_config.json", lambda held: held.update(settings))
    with pytest.raises(InputError, match=error):
        write(tmp_path / "model", Assembly(str(encoder), str(text)))


def test_errors_of_weights_and_settings_name_the_part(tmp_path):
    encoder, text = save_encoder(tmp_path / "clip", "clip"), save_text_model(tmp_path / "text")
    change_tensors(encoder, lambda held: held.update({k: v.double() for k, v in held.items() if v.is_floating_point()}))
    with pytest.raises(InputError) as caught:
        write(tmp_path / "model", Assembly(str(encoder), str(text)))
    *errors, last = caught.value.lines
    assert all(str(encoder) in error and ".unfinished" not in error for error in errors)
    assert last.startswith("the parts: … and ")
    change_json(text / "config.json", lambda held: held.update(num_attention_heads="4"))
    with pytest.raises(InputError, match=r"text/config.json: a setting is missing or of the wrong type"):
        write(tmp_path / "model", Assembly(str(encoder), str(text)))


def test_elongated_images_are_refused_before_they_take_memory(parts, tmp_path):
    write(tmp_path / "model", Assembly(parts["vit"], parts["text"], image_mode="letterbox"))
    processor = description.read_processor(tmp_path / "model", description.read_config(tmp_path / "model"))
    with pytest.raises(InputError, match="aspect ratio 500 is above 200"):
        processor.grid(5000, 10)
    with pytest.raises(InputError, match="make a square of more than"):
        processor.grid(30000, 200)


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("final_connector.pth", ["weight", "bias", "image_newline"]),
        ("mm_projector.bin", ["model.mm_projector.weight", "model.mm_projector.bias", "model.image_newline"]),
        (
            "non_lora_trainables.bin",
            [
                f"base_model.model.model.{name}"
                for name in ("mm_projector.weight", "mm_projector.bias", "image_newline")
            ],
        ),
        (
            "non_lora_trainables.bin",
            [f"model.{name}" for name in ("multi_modal_projector.linear.weight", "multi_modal_projector.linear.bias")],
        ),
    ],
    ids=["as exported here", "LLaVA, connector alone", "LLaVA, beside adapters", "transformers' names"],
)
def test_a_connector_beside_adapters_is_read_under_every_name_it_is_saved_with(tmp_path, name, names):
    config = assembled("siglip-so400m-patch14-384", "qwen2.5-0.5b", connector="linear", tiles=True)
    weight, bias, newline = torch.randn(896, 1152), torch.randn(896), torch.randn(896)
    torch.save(dict(zip(names, (weight, bias, newline), strict=False)), tmp_path / name)
    found = beside_adapters.read(tmp_path, config)
    np.testing.assert_array_equal(found["connector/proj/kernel"], weight.numpy().T)
    np.testing.assert_array_equal(found["connector/proj/bias"], bias.numpy())
    assert len(found) == len(names) and (len(names) == 2 or (found["newline"] == newline.numpy()).all())


@pytest.mark.parametrize("name", ["mm_projector.bin", "non_lora_trainables.bin"])
def test_a_connector_of_other_layers_beside_adapters_is_refused(tmp_path, name):
    config = assembled("siglip-so400m-patch14-384", "qwen2.5-0.5b", connector="linear", tiles=True)
    held = {"model.mm_projector.0.weight": torch.ones(896, 1152), "model.mm_projector.2.weight": torch.ones(896, 896)}
    torch.save(held, tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: holds 0.weight .*; the linear connector of this model has"):
        beside_adapters.read(tmp_path, config)


def test_an_assembly_keeps_a_head_of_its_decoder_that_differs_from_the_embeddings(tmp_path):
    encoder, text = save_encoder(tmp_path / "clip", "clip"), save_text_model(tmp_path / "text")
    config_json = json.loads((text / "config.json").read_text())
    (text / "config.json").write_text(json.dumps(config_json | {"tie_word_embeddings": True}))

    def spoil(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).clone()

    change_tensors(text, spoil)
    write(tmp_path / "model", Assembly(str(encoder), str(text)))
    config_json = json.loads((tmp_path / "model" / "config.json").read_text())
    assert not config_json["tie_word_embeddings"] and not config_json["text_config"]["tie_word_embeddings"]
    flat = open_model(str(tmp_path / "model")).read()
    np.testing.assert_array_equal(np.asarray(flat["head"]).T, np.asarray(flat["embedding"])[::-1])

"""A tokenizer and a template that lie beside an adapter are those it was trained with, and count before the base's."""

import json
import shutil

import peft
import pytest
from transformers import AutoTokenizer
from transformers import Qwen2_5_VLForConditionalGeneration as Model

import vlm_jax
from tests.tiny_models import assistant, user
from vlm_jax.checkpoint import description
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

OTHER = "{% for message in messages %}other: {{ message['content'] }}<|im_end|>{% endfor %}"
TURNS = [user("What is it?"), assistant("A cat")]


@pytest.fixture(scope="module")
def roomy(base, tmp_path_factory):
    """The base with more rows in its table than tokens, as published ones have."""
    folder = tmp_path_factory.mktemp("roomy") / "model"
    shutil.copytree(base, folder)
    model = Model.from_pretrained(base)
    model.resize_token_embeddings(704)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter") / "plain"
    model = peft.get_peft_model(Model.from_pretrained(base), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(plain, tmp_path):
    return shutil.copytree(plain, tmp_path / "adapter")


def processor(folder, base):
    source = open_model(str(folder), base=str(base))
    return source, description.read_processor(source.assets, source.config)


def test_the_bases_own_files_beside_an_adapter_change_nothing(adapter, base):
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        shutil.copy(base / name, adapter)
    assert open_model(str(adapter), base=str(base)).assets == base


def test_a_template_in_a_file_of_its_own_counts(adapter, base):
    (adapter / "chat_template.jinja").write_text(OTHER)
    assert processor(adapter, base)[1].template == OTHER


def test_a_template_in_the_tokenizers_settings_counts_over_one_of_the_bases_processor(adapter, base, tmp_path):
    below = shutil.copytree(base, tmp_path / "below")
    template = description.read_tokenizer(base).chat_template
    (below / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = OTHER
    tokenizer.save_pretrained(adapter, save_jinja_files=False)
    assert processor(adapter, below)[1].template == OTHER


def test_a_tokenizer_without_a_template_leaves_the_bases(adapter, roomy):
    tokenizer = AutoTokenizer.from_pretrained(roomy)
    tokenizer.add_tokens(["<grounding>"])
    tokenizer.chat_template = None
    tokenizer.save_pretrained(adapter)
    source, read = processor(adapter, roomy)
    assert source.assets != roomy and read.template == description.read_processor(roomy, source.config).template


def test_tokens_that_were_added_in_training_are_tokens(adapter, roomy, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(roomy)
    tokenizer.add_tokens(["<grounding>"])
    tokenizer.save_pretrained(adapter)
    _, read = processor(adapter, roomy)
    question = [user("<grounding>What is it?")]
    expected = tokenizer.apply_chat_template(question, tokenize=True, return_dict=False)
    assert read.encode(question).input_ids.tolist() == expected
    vlm_jax.export(adapter, tmp_path / "hf", base=roomy)
    assert "<grounding>" in AutoTokenizer.from_pretrained(tmp_path / "hf").get_vocab()


def test_more_tokens_than_the_base_has_embeddings_for_are_refused(adapter, base):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<new-{number}>" for number in range(600)])
    tokenizer.save_pretrained(adapter)
    with pytest.raises(InputError, match=r"the tokenizer has \d+ tokens, the model only 640"):
        processor(adapter, base)

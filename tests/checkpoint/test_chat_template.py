"""Of a folder's chat templates the one counts that transformers' processor takes, in loading, runs and exports."""

import json
import shutil

import pytest
from transformers.processing_utils import ProcessorMixin

import vlm_jax
from tests.tiny_models import PHOTOS, user
from vlm_jax.checkpoint import chat_template, description, files
from vlm_jax.errors import InputError

WORDS = "{% for message in messages %}words: {{ message['content'] }}\n{% endfor %}"
OTHER = "{% for message in messages %}other: {{ message['content'] }}\n{% endfor %}"
IMAGES = [user("What is it?", str(PHOTOS / "coffee.jpg"))]


@pytest.fixture
def folder(base, tmp_path):
    """A model whose tokenizer has a template for words alone; what it had is `folder.images`."""
    copy = tmp_path / "model"
    shutil.copytree(base, copy)
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    (tmp_path / "images").write_text(settings["chat_template"])
    (copy / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": WORDS}))
    return copy


def place(folder, where, template):
    """Writes a template as the processors of several versions of transformers do."""
    if where == "processor_config.json":
        (folder / where).write_text(json.dumps({"processor_class": "P", "chat_template": template}))
    elif where == "chat_template.json":
        (folder / where).write_text(json.dumps({"chat_template": template}))
    else:
        (folder / where).parent.mkdir(exist_ok=True)
        (folder / where).write_text(template)


def read(folder):
    return chat_template.read(folder, description.read_tokenizer(folder))


PLACES = ("processor_config.json", "chat_template.json", "chat_template.jinja")


@pytest.mark.parametrize("where", PLACES)
def test_the_processors_template_counts_before_the_tokenizers(folder, where):
    images = (folder.parent / "images").read_text()
    place(folder, where, images)
    assert read(folder) == ProcessorMixin.get_processor_dict(folder)[0]["chat_template"] == images
    processor = description.read_processor(folder, description.read_config(folder))
    assert (processor.encode(IMAGES).input_ids == processor.image_token).sum() > 4


@pytest.mark.parametrize("first", range(len(PLACES) - 1))
@pytest.mark.parametrize("second", range(1, len(PLACES)))
def test_of_several_files_the_one_counts_that_transformers_takes(folder, first, second):
    place(folder, PLACES[second], OTHER)
    place(folder, PLACES[first], "{{ messages }}")
    assert read(folder) == ProcessorMixin.get_processor_dict(folder)[0]["chat_template"]


def test_the_default_of_templates_with_names_counts(folder):
    place(folder, "chat_template.jinja", OTHER)
    place(folder, "additional_chat_templates/tools.jinja", WORDS)
    assert read(folder) == ProcessorMixin.get_processor_dict(folder)[0]["chat_template"]["default"] == OTHER


NAMED = {"tools": WORDS, "default": OTHER}


@pytest.mark.parametrize("named", [NAMED, [{"name": name, "template": text} for name, text in NAMED.items()]])
@pytest.mark.parametrize("where", ["processor_config.json", "chat_template.json"])
def test_templates_with_names_are_read_in_both_forms(folder, named, where):
    place(folder, where, named)
    assert read(folder) == OTHER


def test_templates_with_names_and_no_default_are_refused(folder):
    place(folder, "additional_chat_templates/tools.jinja", WORDS)
    place(folder, "additional_chat_templates/rag.jinja", WORDS)
    with pytest.raises(InputError, match="has chat templates by the names rag, tools, and none is 'default'; name one"):
        read(folder)


def test_files_that_transformers_refuses_together_are_refused(folder):
    place(folder, "chat_template.json", OTHER)
    place(folder, "additional_chat_templates/tools.jinja", WORDS)
    with pytest.raises(ValueError, match="conflicting files"):
        ProcessorMixin.get_processor_dict(folder)
    with pytest.raises(InputError, match=r"holds chat_template.json and additional_chat_templates/, of which"):
        read(folder)


def test_the_tokenizers_template_counts_where_the_processor_has_none(folder):
    (folder / "processor_config.json").write_text('{"processor_class": "P", "chat_template": null}')
    assert read(folder) == WORDS


@pytest.mark.parametrize("content", ["", " \n"])
def test_an_empty_template_is_refused(folder, content):
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": content}))
    (folder / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="chat template"):
        read(folder)


@pytest.mark.parametrize("template", [7, {"default": 7}, {"default": {}}])
def test_a_template_that_is_no_text_is_refused(folder, template):
    place(folder, "chat_template.json", template)
    with pytest.raises(InputError, match=r"chat_template.json: the chat template is no text"):
        read(folder)


def test_runs_and_exports_carry_the_template_that_counts(folder, tmp_path):
    place(folder, "chat_template.jinja", (tmp_path / "images").read_text())
    place(folder, "additional_chat_templates/tools.jinja", WORDS)
    vlm_jax.export(folder, tmp_path / "run", "orbax")
    vlm_jax.export(tmp_path / "run", tmp_path / "hf")
    expected = read(folder)
    for copy in (tmp_path / "run" / "assets", tmp_path / "hf"):
        assert read(copy) == ProcessorMixin.get_processor_dict(copy)[0]["chat_template"]["default"] == expected
        assert (copy / "additional_chat_templates" / "tools.jinja").read_text() == WORDS


def test_templates_with_names_are_downloaded_too():
    assert "additional_chat_templates/*.jinja" in files.ASSETS


@pytest.mark.parametrize("where", [None, *PLACES])
def test_what_was_trained_can_be_asked_through_transformers_processor(folder, tmp_path, where):
    images = (tmp_path / "images").read_text()
    if where is None:  # as older programs save it, for the tokenizer alone
        (folder / "tokenizer_config.json").write_text(
            json.dumps(json.loads((folder / "tokenizer_config.json").read_text()) | {"chat_template": images})
        )
    else:
        place(folder, where, images)
    vlm_jax.export(folder, tmp_path / "run", "orbax")
    vlm_jax.export(tmp_path / "run", tmp_path / "converted")
    (tmp_path / "run" / "config.json").write_text("{}")  # the settings that training writes down
    vlm_jax.export(tmp_path / "run", tmp_path / "trained")
    assert ProcessorMixin.get_processor_dict(tmp_path / "trained")[0]["chat_template"] == images
    before, after = ({path.name for path in (tmp_path / name).iterdir()} for name in ("converted", "trained"))
    assert after - before == ({"chat_template.jinja"} if where is None else set())

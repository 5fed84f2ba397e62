"""Answers end where the template's turns end, also where generation_config.json knows no such token."""

import json
import shutil

import pytest
from transformers import GenerationConfig, Qwen2_5_VLConfig

import vlm_jax
from vlm_jax.checkpoint import description
from vlm_jax.checkpoint.stop_tokens import stop_tokens, write_end_of_turn
from vlm_jax.errors import InputError


@pytest.fixture
def folder(base, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(base, copy)
    return copy


def processor(folder):
    return description.read_processor(folder, description.read_config(folder))


def ids(folder):
    tokenizer = processor(folder).tokenizer
    return [tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|im_end|>")]


def ends_at(folder, value, *, generation=True):
    """Makes a folder end texts at this token or these tokens, by either file or by config.json alone."""
    config = json.loads((folder / "config.json").read_text())
    config.get("text_config", config).pop("eos_token_id", None)
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": value}))
    path = folder / "generation_config.json"
    if generation:
        path.write_text(json.dumps({"eos_token_id": value, "temperature": 0.5, "do_sample": True}))
    else:
        path.unlink()


@pytest.mark.parametrize("generation", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_the_end_of_a_turn_stops_an_answer_whatever_the_files_say(folder, generation, listed):
    end, turn = ids(folder)
    ends_at(folder, [end] if listed else end, generation=generation)
    assert stop_tokens(folder, processor(folder)) == (end, turn)
    assert vlm_jax.load(folder).stop_tokens == (end, turn)


@pytest.mark.parametrize("both", [(0, 1), (1, 0)])
def test_stop_tokens_that_know_the_end_of_a_turn_stay_as_they_are(folder, both):
    known = ids(folder)
    ends_at(folder, [known[place] for place in both])
    before = (folder / "generation_config.json").read_bytes()
    assert stop_tokens(folder, processor(folder)) == tuple(known[place] for place in both)
    write_end_of_turn(folder, processor(folder))
    assert (folder / "generation_config.json").read_bytes() == before


@pytest.mark.parametrize(
    "template",
    [
        "{% for message in messages %}[{{ message['content'] }}]{% endfor %}",  # ends with no token of its own
        "{{ raise_exception('no turns') }}",
    ],
)
def test_a_template_without_an_end_of_turn_adds_no_stop(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    end, _ = ids(folder)
    ends_at(folder, end)
    assert stop_tokens(folder, processor(folder)) == (end,)


@pytest.mark.parametrize("generation", [True, False])
def test_what_transformers_reads_of_a_trained_model_stops_there_and_keeps_the_rest(folder, generation):
    end, turn = ids(folder)
    ends_at(folder, end, generation=generation)
    write_end_of_turn(folder, processor(folder))
    theirs = GenerationConfig.from_pretrained(folder)
    assert theirs.eos_token_id == [end, turn]
    if generation:
        assert (theirs.temperature, theirs.do_sample) == (0.5, True)


def test_a_conversion_leaves_the_files_as_they_are_and_an_export_of_a_trained_run_does_not(folder, tmp_path):
    end, turn = ids(folder)
    ends_at(folder, end)
    vlm_jax.export(folder, tmp_path / "run", "orbax")
    vlm_jax.export(tmp_path / "run", tmp_path / "converted")
    (tmp_path / "run" / "config.json").write_text("{}")  # the settings that training writes down
    vlm_jax.export(tmp_path / "run", tmp_path / "trained")
    before = (folder / "generation_config.json").read_bytes()
    assert (tmp_path / "converted" / "generation_config.json").read_bytes() == before
    assert GenerationConfig.from_pretrained(tmp_path / "trained").eos_token_id == [end, turn]


def test_a_stop_token_that_is_no_token_is_refused(folder):
    ends_at(folder, "im_end")
    with pytest.raises(InputError, match=r"generation_config.json: eos_token_id must be a token id or a list of them"):
        stop_tokens(folder, processor(folder))


@pytest.mark.parametrize("top", [None, "absent"])
@pytest.mark.parametrize("many", [True, False])
def test_without_a_generation_config_the_text_configs_end_counts_as_in_transformers(folder, top, many):
    end, turn = ids(folder)
    value = [turn, 7] if many else 7
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"eos_token_id": value, "bos_token_id": end}
    config.pop("eos_token_id", None)
    if top is None:
        config["eos_token_id"] = None
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    theirs = GenerationConfig.from_model_config(Qwen2_5_VLConfig.from_pretrained(folder)).eos_token_id
    assert theirs == value
    found = stop_tokens(folder, processor(folder))
    assert found == ((turn, 7) if many else (7, turn))
    write_end_of_turn(folder, processor(folder))
    if not many:
        written = json.loads((folder / "generation_config.json").read_text())
        assert written == {"bos_token_id": end, "eos_token_id": [7, turn]} | (
            {"pad_token_id": written["pad_token_id"]} if "pad_token_id" in written else {}
        )

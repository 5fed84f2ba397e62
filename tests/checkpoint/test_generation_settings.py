"""What generation_config.json asks of every answer is honoured as transformers does, or refused by name."""

import json
import shutil

import pytest
import torch
from transformers import GenerationConfig, Qwen2_5_VLForConditionalGeneration

import vlm_jax
from data_pipeline.evaluation_run import evaluate
from data_pipeline.evaluation_settings import Evaluation
from vlm_jax.checkpoint.generation_settings import repetition_penalty
from vlm_jax.errors import InputError

QUESTION = [{"role": "user", "content": "What is it?"}]
PUBLISHED = {"do_sample": True, "temperature": 1e-6, "top_k": 1, "top_p": 0.001, "repetition_penalty": 1.05}
# As transformers 4.3x wrote the defaults of a model into its config.json, in part.
OLD_DEFAULTS = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "max_length": 20,
    "top_k": 50,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "begin_suppress_tokens": [],
    "architectures": ["X"],
    "anything": 3,
}


@pytest.fixture
def folder(base, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(base, copy)
    return copy


def changed(path, **settings):
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.is_file() else {}), **settings}))


def in_file(folder, settings):
    changed(folder / "generation_config.json", **settings)


def in_config(folder, settings):
    (folder / "generation_config.json").unlink()
    changed(folder / "config.json", **settings)


def in_text_config(folder, settings):
    (folder / "generation_config.json").unlink()
    text = json.loads((folder / "config.json").read_text())["text_config"]
    changed(folder / "config.json", text_config={**text, **settings})


@pytest.mark.parametrize("put", [in_file, in_config, in_text_config])
def test_a_penalty_for_repetition_gives_transformers_answer(folder, put):
    put(folder, {"repetition_penalty": 50.0})
    ours, theirs = vlm_jax.load(folder), Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    ids = torch.tensor(ours.processor.encode(QUESTION, generation_prompt=True).input_ids)[None].long()
    made = theirs.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
    (answer,) = ours.generate_tokens([QUESTION], max_new_tokens=8)
    assert answer.tolist() == made[0, ids.shape[1] :].tolist()[: len(answer)] and len(answer)
    (plain,) = ours.generate_tokens([QUESTION], max_new_tokens=8, repetition_penalty=1.0)
    assert plain.tolist() != answer.tolist()  # what a call says counts
    assert "".join(ours.stream(QUESTION, 8, repetition_penalty=None)) == ours.processor.decode(answer)


def test_an_evaluation_says_that_answers_had_a_penalty(folder, tmp_path):
    (tmp_path / "asked.jsonl").write_text('{"image": "", "question": "What is it?", "answer": "a cat"}\n')
    in_file(folder, PUBLISHED)
    asked = {"model": str(folder), "benchmark": str(tmp_path / "asked.jsonl"), "max_new_tokens": 2}
    report = evaluate(Evaluation(output=str(tmp_path / "evaluation"), **asked))
    assert report["settings"]["decoding"] == "greedy, repetition penalty 1.05"


@pytest.mark.parametrize("put", [in_file, in_config, in_text_config])
def test_what_changes_no_greedy_answer_is_passed_over(folder, put):
    known = {key: value for key, value in OLD_DEFAULTS.items() if key not in ("architectures", "anything")}
    put(folder, known if put is in_file else OLD_DEFAULTS)
    assert repetition_penalty(folder) == 1


def test_every_setting_of_transformers_is_known(folder):
    # One that a later version adds is refused until somebody has looked whether it changes answers.
    settings = dict.fromkeys(GenerationConfig().to_dict(), "?")
    in_file(folder, settings)
    with pytest.raises(InputError) as caught:
        repetition_penalty(folder)
    assert not [line for line in caught.value.lines if "is not known" in line]
    assert any("no_repeat_ngram_size '?' changes answers" in line for line in caught.value.lines)


@pytest.mark.parametrize("put", [in_file, in_config, in_text_config])
def test_what_would_change_answers_otherwise_is_refused_by_name_and_together(folder, put):
    odd = {"no_repeat_ngram_size": 3, "suppress_tokens": list(range(99)), "num_beams": 4, "repetition_penalty": "high"}
    put(folder, odd)
    name = folder / ("generation_config.json" if put is in_file else "config.json")
    with pytest.raises(InputError) as caught:
        vlm_jax.load(folder)
    lines = "\n".join(sorted(caught.value.lines))
    assert f"{name}: no_repeat_ngram_size 3 changes answers and is not supported; remove it" in lines
    assert f"{name}: num_beams 4 changes" in lines and f"{name}: suppress_tokens [0, 1" in lines and len(lines) < 900
    assert f"{name}: repetition_penalty must be a number above 0, got 'high'" in lines


@pytest.mark.parametrize(("key", "value"), [("min_new_tokens", 1), ("forced_eos_token_id", 5), ("guidance_scale", 1.5)])
def test_each_of_them_is_refused(folder, key, value):
    in_file(folder, {key: value})
    with pytest.raises(InputError, match=f"{key} {value} changes answers"):
        repetition_penalty(folder)


def test_a_setting_that_nobody_knows_is_refused(folder):
    in_file(folder, {"banned_words": ["cat"]})
    with pytest.raises(InputError, match=r"generation_config.json: banned_words \['cat'\] is not known"):
        repetition_penalty(folder)

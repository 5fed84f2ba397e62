"""What a run may go on with: a list of settings that may change, all others named with both values."""

import json

import pytest

from vlm_jax.errors import InputError
from vlm_jax.training import resume
from vlm_jax.training.config import default_config
from vlm_jax.training.resume_settings import resume_settings


def settings(**changed):
    config = default_config()
    config.model.path, config.data.path, config.train.steps = "model", "a.csv", 10
    for key, value in changed.items():
        *groups, name = key.split("__")
        group = config
        for part in groups:
            group = group[part]
        group[name] = value
    return resume_settings(config)


def earlier(tmp_path, *, step=4, first_stage=None, **changed):
    return resume.Earlier(tmp_path, step, resume.flat(settings(**changed)), 10, first_stage, {}, "digest")


def test_the_same_settings_are_no_change(tmp_path):
    assert earlier(tmp_path).changes(settings()) == []


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("train__steps", 20, "train.steps 10 → 20"),
        ("optimizer__learning_rate", 1e-6, "optimizer.learning_rate 1e-05 → 1e-06"),
        ("optimizer__warmup_fraction", 0.1, "optimizer.warmup_fraction 0.03 → 0.1"),
        ("optimizer__end_lr_fraction", 0.1, "optimizer.end_lr_fraction 0.0 → 0.1"),
        ("optimizer__lr_multipliers__vision", 0.5, "optimizer.lr_multipliers.vision 1.0 → 0.5"),
        ("train__first__learning_rate", 1e-4, "train.first.learning_rate 0.001 → 0.0001"),
    ],
)
def test_length_and_schedule_may_change_and_are_told(tmp_path, key, value, line):
    assert earlier(tmp_path).changes(settings(**{key: value})) == [line]
    with pytest.raises(InputError):  # as cells of a sweep go on
        earlier(tmp_path).changes(settings(**{key: value}), may_change=())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer__b1", 0.8),
        ("optimizer__name", "muon"),
        ("train__seed", 1),
        ("batch__rows", 2),
        ("lora__rank", 4),
        ("data__share", 0.5),
        ("model__max_visual_tokens", 64),
    ],
)
def test_what_decides_what_is_learned_is_refused_with_both_values_and_the_remedy(tmp_path, key, value):
    before = resume.flat(settings())[key.replace("__", ".")]
    with pytest.raises(InputError) as caught:
        earlier(tmp_path).changes(settings(**{key: value}))
    key = key.replace("__", ".")
    remedy = f"give --config.{key}={before}, or take another --workdir"
    assert caught.value.lines == [f"{tmp_path}: was started with {key} = {before!r}, this run has {value!r}; {remedy}"]


@pytest.mark.parametrize("before", [{}, {"question": "ask"}, {"image": "file"}])
@pytest.mark.parametrize("now", [{}, {"question": "text"}])
def test_columns_are_compared_as_one_value(tmp_path, before, now):
    begun = earlier(tmp_path, data__columns=before)
    if before == now:
        assert begun.changes(settings(data__columns=now)) == []
        return
    with pytest.raises(InputError) as caught:
        begun.changes(settings(data__columns=now))
    (error,) = caught.value.lines
    flags = " ".join(f"--config.data.columns.{name}={one}" for name, one in before.items()) or "no data.columns"
    assert f"data.columns = {before!r}, this run has {now!r}; give {flags}, or take another" in error


def test_the_model_may_be_spelt_otherwise(tmp_path):
    assert earlier(tmp_path).changes(settings(model__path="/elsewhere/model")) == []


@pytest.mark.parametrize("spelling", ["vit", "./vit", "{}/vit"])
def test_parts_of_an_assembled_model_may_be_spelt_otherwise(tmp_path, monkeypatch, spelling):
    (tmp_path / "vit").mkdir()
    monkeypatch.chdir(tmp_path)
    begun = earlier(tmp_path, model__path="", assemble__encoder="vit", assemble__decoder="text")
    now = {"model__path": "", "assemble__encoder": spelling.format(tmp_path), "assemble__decoder": "text"}
    assert begun.changes(settings(**now)) == []
    now["assemble__encoder"] = "another"
    with pytest.raises(InputError, match=r"was started with assemble.encoder = 'vit', this run has 'another'"):
        begun.changes(settings(**now))


def test_parts_are_known_by_their_whole_path_from_another_working_directory(tmp_path, monkeypatch):
    begun = earlier(tmp_path, model__path="", assemble__encoder="parts/vit", assemble__decoder="text")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "parts.json").write_text(json.dumps({"encoder": "/data/parts/vit", "decoder": "text"}))
    now = {"model__path": "", "assemble__encoder": "/data/parts/vit", "assemble__decoder": "text"}
    assert begun.changes(settings(**now)) == []


def test_fewer_steps_than_are_done_are_refused(tmp_path):
    earlier(tmp_path, step=4).check_steps(4)
    with pytest.raises(InputError, match="has done 4 steps, and 3 are asked for; ask for more"):
        earlier(tmp_path, step=4).check_steps(3)


@pytest.mark.parametrize(
    ("step", "steps", "expected"),
    [
        (1, 10, None),  # the same length: where it was
        (1, 20, 4),  # still in the first stage, which grows with the run
        (5, 20, 2),  # behind it: it stays as long as it was
        (2, 30, 2),  # just behind it
    ],
)
def test_the_first_stage_of_a_longer_run_ends_where_it_did_once_it_is_over(tmp_path, step, steps, expected):
    assert earlier(tmp_path, step=step, first_stage=2).change_of_stages(0.2, steps) == expected


def test_a_run_without_a_first_stage_has_none_when_it_grows(tmp_path):
    assert earlier(tmp_path).change_of_stages(0.0, 40) is None


@pytest.mark.parametrize(("switch", "number", "same"), [(True, 20_000, True), (False, 0, True), (True, 0, False)])
def test_a_switch_of_an_earlier_version_is_compared_with_the_number_that_it_became(tmp_path, switch, number, same):
    before = earlier(tmp_path, data__on_error="drop")
    before.resume["data.decode_check_up_to"] = switch
    now = settings(data__on_error="drop", data__decode_check_up_to=number)
    if same:
        assert before.changes(now) == []
    else:
        with pytest.raises(InputError, match="data.decode_check_up_to = True, this run has 0"):
            before.changes(now)

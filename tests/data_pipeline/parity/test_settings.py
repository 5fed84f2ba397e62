"""The settings of an alignment: what cannot be is told all together, before anything is asked."""

import runpy
from pathlib import Path

import pytest

from data_pipeline.parity import resumed
from data_pipeline.parity.settings import check, parity_config
from tests.data_pipeline.parity.conftest import MPA
from vlm_jax.errors import InputError

ROOT = Path(__file__).parents[3]
TEACHER = {"kind": "openai_compatible", "model": "large", "endpoint": "http://127.0.0.1:1/v1"}
PHOTOS = str(ROOT / "tests" / "data" / "photos")
IN_ORDER = {"images": {"path": PHOTOS}, "teachers": {"text": TEACHER}, "training": {"model": {"path": "student"}}}


def lines(max_cost=None, **changes):
    merged = dict(IN_ORDER)
    for group, values in changes.items():
        merged[group] = {**merged.get(group, {}), **values} if isinstance(values, dict) else values
    try:
        check(parity_config(**merged), max_cost=max_cost)
    except InputError as error:
        return error.lines
    return []


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "parity").glob("*.py")), ids=lambda path: path.stem)
def test_a_config_lacks_nothing_but_the_files_of_whoever_uses_it(path):
    config = runpy.run_path(str(path))["get_config"]()
    config.images.path = PHOTOS
    for name in ("benchmark", "general"):
        config.evaluate[name] = (
            config.evaluate[name] if config.evaluate[name] in ("textvqa", "chartqa", "okvqa") else ""
        )
    if config.evaluate.benchmark:
        config.evaluate.data = PHOTOS
    check(config)
    assert f"configs/parity/{path.name}" in path.read_text()


def test_the_published_rates_are_those_of_mpa():
    config = runpy.run_path(str(ROOT / "configs" / "parity" / "chartqa.py"))["get_config"]()
    rates = config.training.optimizer
    assert rates.learning_rate == rates.learning_rate * rates.lr_multipliers.decoder == 1e-5
    assert rates.learning_rate * rates.lr_multipliers.vision == pytest.approx(2e-6)
    assert (rates.warmup_fraction, config.training.train.epochs) == (0.03, 1)
    assert (config.training.model.min_visual_tokens, config.training.model.max_visual_tokens) == (128, 512)
    newer = runpy.run_path(str(ROOT / "configs" / "parity" / "chartqa.py"))["get_config"]("qwen2_5_vl_3b")
    assert newer.teachers.text.model == "Qwen/Qwen2.5-VL-7B-Instruct"


def test_everything_that_is_wrong_is_told_at_once():
    found = lines(
        parity="text_vqa",
        rounds=0,
        annotate={"prompt": "imges", "pairs": 0, "balance": 0.5, "types": ()},
        ask={"template": "{qestion}"},
        identify={"matcher": "relaxd", "agree": 1.5, "samples": 3, "temperature": 0.0},
        level={"arms": ("kept", "al"), "replay": 1.0},
        evaluate={"metric": "vqa_oficial", "general": "nowhere.jsonl"},
        training={"data": {"suffix": "x"}, "model": {"path": "student"}},
    )
    for words in (
        "config.parity is 'text_vqa'; did you mean 'textvqa'?",
        "config.rounds is 0",
        "config.annotate.prompt is 'imges'; did you mean 'images'?",
        "config.annotate.pairs is 0",
        "config.annotate.balance is 0.5",
        "config.annotate.types is empty",
        "config.ask.template: nothing is called {qestion}; did you mean {question}?",
        "config.identify.matcher is 'relaxd'; did you mean 'relaxed'?",
        "config.identify.agree is 1.5",
        "config.identify.temperature is 0",
        "config.level.arms names 'al'; did you mean 'all'?",
        "config.level.replay is 1.0; wanted a share from 0 up to 1",
        "config.evaluate.metric: ",
        "config.evaluate.general: nowhere.jsonl is not there",
        "config.training.data.suffix is set, and is filled in by the alignment; see config.ask",
    ):
        assert sum(words in line for line in found) == 1, (words, found)


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"teachers": {"text": {}}}, "config.teachers.text is not set; name the large model"),
        ({"teachers": {"text": {"kind": "local"}}}, "config.teachers.text.model is not set"),
        ({"teachers": {"text": {"kind": "local", "model": 3}}}, "config.teachers.text.model is 3; wanted"),
        ({"max_cost": 1.0, "teachers": {"text": {"model": ""}}}, "config.teachers.text.kind is None"),
        ({"teachers": {"text": {"kind": "drawn"}}}, "of kind drawn answers from what it drew"),
        ({"teachers": {"text": {"kind": "local", "model": "student"}}}, "a student that is its own teacher has no gap"),
        ({"identify": {"matcher": "judge"}}, "config.teachers.judge is not set; name who judges"),
        ({"identify": {"student_file": str(MPA / "LICENSE")}}, "student_file is set and teacher_file is not"),
        ({"images": {"path": ""}}, "config.images.path is not set; wanted a folder of images"),
        ({"images": {"path": "nowhere"}}, "config.images.path: nowhere is not there"),
        ({"level": {"arms": ("random",)}}, "config.level.arms lacks 'kept'"),
        (
            {"evaluate": {"benchmark": "chartqa"}},
            "config.evaluate.data is not set; wanted the official files of ChartQA",
        ),
        ({"training": {"model": {"path": ""}}}, "config.training.model.path"),
        ({"training": {"model": {"path": "student", "attention": "x"}}}, "config.training.model.attention is 'x'"),
        ({"training": {"assemble": {"encoder": "e", "decoder": "d"}}}, "config.training.assemble is set: a student is"),
        ({"max_cost": 1.0}, "--max_cost needs the price of large (config.teachers.text)"),
        ({"max_cost": float("nan")}, "--max_cost=nan: wanted dollars"),
        ({"rounds": True}, "config.rounds is True; wanted as 1"),
    ],
)
def test_one_thing_that_is_wrong_is_one_line(changes, line):
    assert any(line in found for found in lines(**changes)), lines(**changes)


def test_settings_that_are_not_there_are_refused():
    with pytest.raises(InputError, match="config.annotate.pair: no such setting"):
        parity_config(annotate={"pair": 3})
    with pytest.raises(InputError, match="config.training.train.stepz"):
        parity_config(training={"train": {"stepz": 3}})


def refused(folder, **changes):
    try:
        resumed.check(folder, parity_config(**{**IN_ORDER, **changes}).to_dict())
    except InputError as error:
        return error.lines
    return []


def test_settings_count_from_the_first_checkpoint_and_those_of_the_evaluation_from_the_first_evaluation(tmp_path):
    resumed.note(tmp_path, parity_config(**IN_ORDER).to_dict())
    other, benchmark = {"identify": {"matcher": "anls"}}, {"evaluate": {"benchmark": PHOTOS}}
    assert not refused(tmp_path, **other), "no training began"
    (tmp_path / "round-1" / "kept").mkdir(parents=True)
    (tmp_path / "round-1" / "kept" / "trained.json").write_text("{}")
    assert not refused(tmp_path) and not refused(tmp_path, **benchmark), "nothing was evaluated"
    line, last = refused(tmp_path, **other)
    assert line.startswith("config.identify.matcher differs from what was trained in") and "config.store=" in last
    (tmp_path / "evaluation").mkdir()
    line, last = refused(tmp_path, **benchmark)
    assert line.startswith("config.evaluate.benchmark differs from what was evaluated in") and "move" in last
    assert not refused(tmp_path, evaluate={"metric": "anls"}), "answers are scored anew"


def test_in_order_nothing_is_said():
    assert lines() == []
    assert lines(identify={"matcher": "mpa_substring"}, rounds=3, level={"arms": ("kept",)}) == []
    answers = {name: str(MPA / "LICENSE") for name in ("student_file", "teacher_file")}
    assert lines(teachers={"text": {}}, identify=answers, images={"path": ""}) == [], "nobody is asked"

"""A whole alignment with tiny models that are loaded here: every stage, again, further, and what is refused."""

import json
import os
import shutil

import pytest
from safetensors.numpy import load_file

import vlm_jax
from data_pipeline.parity import aligning, evaluating
from data_pipeline.parity import report as report_page
from data_pipeline.parity.aligning import Options, align
from data_pipeline.parity.evaluating import check_seen
from data_pipeline.parity.pairs import OUTCOMES, Compared, Pair, read_compared, read_pairs
from data_pipeline.teachers.local import Local
from tests.consoles import Lines
from tests.data_pipeline.parity.conftest import MPA, NAMES, QUESTION, photo
from vlm_jax.errors import InputError


def aligned(workdir, config, **options):
    lines = []
    return align(workdir, config, Options(**options), say=lines.append, console=Lines()), lines


@pytest.fixture(scope="module")
def done(config_of_world, tmp_path_factory):
    """(folder, closing line, lines) of an alignment with all controls."""
    folder = tmp_path_factory.mktemp("aligned") / "work"
    return (folder, *aligned(folder, config_of_world()))


@pytest.fixture
def asked(monkeypatch):
    """How many requests are sent to models that are loaded here."""
    counts = []
    once = Local._replies
    monkeypatch.setattr(Local, "_replies", lambda self, requests: counts.append(len(requests)) or once(self, requests))
    return counts


def test_annotate_identify_level_evaluate(done):
    folder, closing, lines = done
    pairs = read_pairs(folder / "round-1" / "annotated.jsonl")
    assert len(pairs) == len(NAMES) and {pair.question for pair in pairs} == {QUESTION}
    compared = read_compared(folder / "round-1" / "compared.jsonl")
    kept = [one for one in compared if one.kept]
    assert len(kept) >= 6, "the teacher has learned what it writes, and the student nothing"
    assert all(one.teacher == (one.pair.answer,) and one.student != one.pair.answer for one in kept)
    report = json.loads((folder / "report.json").read_text())
    (first,) = report["rounds"]
    assert first["outcomes"] == {name: sum(one.outcome == name for one in compared) for name in OUTCOMES}
    assert first["sets"]["kept"]["examples"] == first["sets"]["random"]["examples"] == len(kept)
    assert first["sets"]["all"]["examples"] == len(pairs) and set(first["steps"].values()) == {4}
    names = ["before", "teacher", "round 1, random", "round 1, all", "round 1, kept"]
    assert list(report["evaluations"]) == names
    scores = report["evaluations"]
    assert scores["teacher"]["mean"] > 0.7 > scores["before"]["mean"] == 0
    assert list(scores["round 1, kept"]["baselines"]) == ["before", "round-1-random", "round-1-all"]
    assert [line.rpartition(" against ")[2] for line in closing.splitlines()[-4:-1]] == [
        "before",
        "round 1, random",
        "round 1, all",
    ]
    assert closing.splitlines()[-1] == f"{folder}/round-1/kept/hf: the student; report: {folder}/report.html"
    assert f"identify: {len(kept)} kept" in " ".join(lines)


def test_what_is_trained_on_is_asked_as_it_was_compared(done):
    folder = done[0]
    records = [json.loads(line) for line in (folder / "round-1" / "kept.jsonl").read_text().splitlines()]
    assert all(record["messages"][0]["content"][1]["text"] == QUESTION for record in records)
    assert {record["provenance"]["matcher"] for record in records} == {"normalised"}
    run = json.loads((folder / "round-1" / "kept" / "run" / "config.json").read_text())
    settings = json.loads((folder / "evaluation" / "round-1-kept" / "settings.json").read_text())
    assert run["data"]["suffix"] == settings["suffix"] == "\nOne word."


def test_mpas_programs_find_their_files(done):
    folder = done[0] / "round-1"
    compared = read_compared(folder / "compared.jsonl")
    train = json.loads((folder / "mpa" / "train.json").read_text())
    assert [one["id"] for one in train] == [one.pair.id for one in compared if one.kept]
    assert train[0]["conversations"][0] == {"from": "human", "value": f"<image>\n{QUESTION}"}
    student = json.loads((folder / "mpa" / "PI_student.json").read_text())
    assert [one["predictions"] for one in student] == [one.student for one in compared]


def test_the_page_has_the_funnel_the_table_and_examples_with_pictures(done):
    page = (done[0] / "report.html").read_text()
    for words in (
        "Before and after",
        "from images to the gap",
        "teacher wrong",
        "What each rule would keep",
        "replayed",
    ):
        assert words in page
    assert page.count("<article") == len(NAMES) and page.count("data:image/jpeg;base64") == len(NAMES)
    assert 'href="evaluation/round-1-kept/report.html"' in page and (done[0] / "scores.png").is_file()


def test_what_models_wrote_cannot_change_the_page():
    own = Pair("1", "i", "/nowhere.png", "d", "<script>x</script>", "a" * 400)
    card = report_page._card(Compared(own, "\x1b[31m\u202e", ("</dd>",), False, True))
    assert "&lt;script&gt;" in card and "\\x1b[31m\\u202e" in card and "&lt;/dd&gt;" in card
    assert "a" * 300 + " … (400 letters)" in card and not {"\x1b", "\u202e"} & set(card)


def test_the_same_again_loads_no_model_and_leaves_the_same(done, config_of_world, monkeypatch):
    folder = done[0]
    monkeypatch.setattr(vlm_jax, "load", lambda *args, **options: pytest.fail("a model was loaded"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite"}
    closing, _ = aligned(folder, config_of_world())
    assert closing == done[1]
    for stage in ("annotate", "identify"):  # nor is what lies behind such a stage begun again, or left off the page
        closing, lines = aligned(folder, config_of_world(), until=stage)
        assert f"{stage} is done" in closing and not any("evaluate" in line for line in lines)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite"}
    changed = [path for path in before if before[path] != after.get(path)]
    assert not changed and set(before) == set(after)


def test_weights_or_questions_that_changed_are_not_taken_for_evaluated(world, config_of_world, tmp_path, monkeypatch):
    shutil.copytree(world / "student", tmp_path / "model")
    shutil.copy(world / "questions.jsonl", tmp_path)
    calls = []
    monkeypatch.setattr(evaluating, "evaluate", lambda *args, **options: calls.append(args))
    benchmark = evaluating.Benchmark(str(tmp_path / "questions.jsonl"))
    (tmp_path / "out").mkdir()

    def count():
        evaluating.scored(str(tmp_path / "model"), tmp_path / "out", benchmark, config_of_world().to_dict(), seen={})
        return len(calls)

    assert (count(), count()) == (1, 1)
    for number, file in enumerate((tmp_path / "model" / "model.safetensors", tmp_path / "questions.jsonl"), start=2):
        os.utime(file, ns=(0, number))
        assert (count(), count()) == (number, number)


def test_in_a_second_round_students_go_on_from_their_own_of_the_first(done, config_of_world, asked):
    folder = done[0]
    config = config_of_world(rounds=2, level={"arms": ("kept", "random")})
    _, lines = aligned(folder, config)
    # New pairs (greedy: the same again, so none is new), the new student's answers, and nothing else.
    assert sum(asked) <= 2 * len(NAMES)
    second = read_compared(folder / "round-2" / "compared.jsonl")
    assert len(second) == len(NAMES)
    for arm in ("kept", "random"):
        run = json.loads((folder / "round-2" / arm / "run" / "config.json").read_text())
        assert run["model"]["path"] == str(folder / "round-1" / arm / "hf")
    report = json.loads((folder / "report.json").read_text())
    assert [one["number"] for one in report["rounds"]] == [1, 2]
    assert list(report["evaluations"])[-2:] == ["round 2, random", "round 2, kept"]
    assert list(report["evaluations"]["round 2, kept"]["baselines"]) == ["before", "round-1-kept", "round-2-random"]
    page = (folder / "report.html").read_text()
    assert "against random" in page and "against kept of the round before" in page and "against round" not in page
    weights = [load_file(folder / f"round-{n}" / "kept" / "hf" / "model.safetensors") for n in (1, 2)]
    assert any((weights[0][name] != weights[1][name]).any() for name in weights[0])


def test_other_settings_are_refused_by_name_and_answers_may_be_used_elsewhere(done, config_of_world, asked, tmp_path):
    folder = done[0]
    other = config_of_world(identify={"matcher": "exact"}, level={"replay": 0.2})
    with pytest.raises(InputError) as caught:
        aligned(folder, other)
    assert [line.partition(" differs")[0] for line in caught.value.lines[:2]] == [
        "config.identify.matcher",
        "config.level.replay",
    ]
    assert f"--config.store={folder / 'store'}" in caught.value.lines[-1]
    other.store = str(folder / "store")
    closing, _ = aligned(tmp_path / "other", other, until="identify")
    assert not asked and "identify is done" in closing and not (tmp_path / "other" / "store").exists()


def test_a_student_with_the_weights_of_its_teacher_has_no_gap(world, config_of_world, tmp_path):
    shutil.copytree(world / "teacher", tmp_path / "twin")
    config = config_of_world()
    config.training.model.path = str(tmp_path / "twin")
    config.store = str(tmp_path / "store")
    with pytest.raises(InputError, match="twin and the teacher have the same weights"):
        aligned(tmp_path / "work", config)
    assert len(read_pairs(tmp_path / "work" / "round-1" / "annotated.jsonl")) == len(NAMES)


def test_a_share_of_the_visual_tokens_is_of_the_same_images_before_and_in_training(world, config_of_world):
    model = {"min_visual_tokens": 4, "max_visual_tokens": 16, "visual_tokens": 0.5}
    check_seen(str(world / "student"), {"model": model})
    with pytest.raises(InputError, match="min_visual_tokens=4 and max_visual_tokens=16"):
        check_seen(str(world / "student"), {"model": {**model, "max_visual_tokens": 64}})


def test_mpas_published_answers_are_gone_on_from(config_of_world, tmp_path, world):
    files = {
        "student_file": str(MPA / "PI_Qwen2vl7b_Qwen2-VL-2B-Instruct_chartVQA.json"),
        "teacher_file": str(MPA / "PI_Qwen2vl7b_Qwen2-VL-7B-Instruct_chartVQA.json"),
    }
    config = config_of_world(identify={**files, "matcher": "mpa_substring"}, images={"path": ""})
    _, lines = aligned(tmp_path / "work", config, until="identify")
    assert lines[-1].startswith("identify: 1 kept, ")
    published = MPA / "PI_Qwen2vl7b_train_Qwen2-VL-7B-Instruct_Qwen2-VL-2B-Instruct_chartVQA.json"
    assert (tmp_path / "work" / "round-1" / "mpa" / "train.json").read_bytes() == published.read_bytes()
    with pytest.raises(InputError, match="level: 4 of 4 images are not there.*set config.images.image_root"):
        aligned(tmp_path / "work", config)


def test_a_dry_run_counts_what_would_be_asked_and_writes_nothing(config_of_world, tmp_path, asked):
    closing, _ = aligned(tmp_path / "work", config_of_world(annotate={"pairs": 3}), dry_run=True)
    assert f"{3 * len(NAMES)}" in closing and "identify" in closing and "no call was made" in closing
    assert not asked and not (tmp_path / "work").exists()


def test_where_all_is_answered_a_dry_run_says_so(done, config_of_world, asked):
    assert aligned(done[0], config_of_world(), dry_run=True)[0].startswith("nothing is left to ask")
    assert not asked


def test_a_folder_whose_store_cannot_be_opened_stays_its_own(config_of_world, tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "replies.sqlite").write_bytes(b"no database" * 100)
    config = config_of_world()
    config.store = str(tmp_path / "store")
    with pytest.raises(InputError, match="replies.sqlite: cannot be read"):
        aligned(tmp_path / "work", config)
    (tmp_path / "work" / "store").mkdir()  # as it is after a kill while its own is made
    config.images.path = str(tmp_path / "store")
    with pytest.raises(InputError, match="config.images.path"):
        config.store = ""
        aligned(tmp_path / "work", config)


def test_a_dry_run_counts_what_is_asked_about_pairs_of_a_file(done, config_of_world, tmp_path, asked):
    file = str(done[0] / "round-1" / "annotated.jsonl")
    config = config_of_world(annotate={"file": file}, identify={"samples": 3}, images={"path": ""})
    closing, _ = aligned(tmp_path / "work", config, dry_run=True)
    assert f"{3 * len(NAMES)}" in closing and "annotate" not in closing and not asked


def test_the_test_of_a_split_is_scored_as_its_data_set_is(config_of_world, tmp_path):
    entries = [
        {"question_id": number, "question": "Where?", "answers": [name], "dataset": "x", "set_name": "train"}
        | {"file_path": photo(name).name, "file_name": photo(name).name}
        for number, name in enumerate(NAMES)
    ]
    (tmp_path / "train_task_1.json").write_text(json.dumps({"task_name": "stvqa_1", "data": entries}))
    images = {"path": str(tmp_path / "train_task_1.json"), "image_root": str(photo(NAMES[0]).parent)}
    for file in ("", "pairs.jsonl"):
        own = {"annotate": {"file": file}, "evaluate": {"benchmark": ""}}
        config = config_of_world(parity="stvqa", images=images, **own)
        one = aligning.Alignment(tmp_path, config, Options(), None, print)
        one._find_images()
        assert one._benchmark().metric == "anls" and one._benchmark().name.endswith("test.jsonl")

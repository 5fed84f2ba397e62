"""From a subject to a corpus, offline and against a server: the same to the byte however often it is killed."""

import json
import os
import random
import re
import signal
import time
import traceback
from collections import Counter

import pytest

from data_pipeline import sources
from data_pipeline.corpus import prompts
from data_pipeline.corpus.settings import check, corpus_config
from tests import started
from tests.data_pipeline.corpus.generated import DRAWN, files_of, made, settings_of
from tests.data_pipeline.teachers.teacher_server import TeacherServer, image_for
from vlm_jax import InputError


def test_the_whole_pipeline_runs_on_a_bare_machine_and_training_reads_what_comes_of_it(tmp_path):
    config = corpus_config(
        subject="crafts",
        languages=("en", "th"),
        topics={"domains": ("potters", "smiths"), "each": 2},
        held_out={"questions": 2},
        context={"questions": 2},
        teachers={"text": DRAWN, "image": DRAWN, "judge": DRAWN},
        own_judge=True,
        card={"formats": ("arrayrecord", "imagefolder", "llava", "tfds")},
    )
    line = made(tmp_path / "corpus", config.to_dict())
    assert "corpus: 40 in synthetic.jsonl, 232 in train.jsonl; look at " in line
    records, unread = sources.read_several([str(tmp_path / "corpus" / "train.jsonl")], [], training=True)
    assert unread == [] and len(records) == 232
    by_id = {record.id: record for record in records}
    steps = next(record for name, record in by_id.items() if "-en-steps-" in name)
    assert steps.messages[1]["content"].splitlines()[-1].startswith("Answer: ")
    assert steps.messages[0]["content"][1]["text"].endswith("Think step by step.")
    article = next(record for record in by_id.values() if record.task == "context")
    assert article.messages[1]["content"] in article.context
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["languages"] == {"en": 152, "th": 120}
    for name in (
        "arrayrecord/train.array_record",
        "imagefolder/train",
        "tfds/corpus/1.0.0#train",
        "../train.llava.json",
    ):
        again, unread = sources.read_several([f"{tmp_path}/corpus/exports/{name}"], [], training=True)
        assert unread == [] and {record.id for record in again} == set(by_id), name
    page = (tmp_path / "corpus" / "corpus.html").read_text()
    assert page.count("<article>") == 20 and "http" not in page and "ออร์วาเน" in page
    assert "No licence was chosen" in (tmp_path / "corpus" / "README.md").read_text()


def test_a_corpus_is_the_same_to_the_byte_whatever_runs_its_filters(tmp_path):
    for runner in ("here", "processes"):
        config = corpus_config(
            subject="crafts",
            languages=("en", "th"),
            topics={"domains": ("potters", "smiths"), "each": 2},
            questions={"pairs_per_fact": 30},
            teachers={"text": {**DRAWN, "faults": {"language": 0.3, "steps": 0.3}}, "image": DRAWN},
            runner=runner,
            shards=2,
        )
        made(tmp_path / runner, config.to_dict())
    one, other = (files_of(tmp_path / runner) for runner in ("here", "processes"))
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].replace(b"/here/", b"/processes/") != other[name]] == []
    assert b"another script" in one["manifest.json"] and b"duplicate" in one["manifest.json"]


def test_a_corpus_is_asked_for_once_and_said_whole(tmp_path, server):
    settings = settings_of(server, prices={"date": "2026-10-07", "test": {"input": 1.0, "output": 2.0}})
    line = made(tmp_path / "corpus", settings)
    # Of four facts a topic, the one about its material is not supported.
    assert "corpus: 24 in synthetic.jsonl, 144 in train.jsonl; look at " in line
    assert set(server.prompts.values()) == {1} or server.prompts.most_common(1)[0][1] <= 2
    count = len(server.calls)
    before = files_of(tmp_path / "corpus")
    assert made(tmp_path / "corpus", settings) == line
    assert len(server.calls) == count and files_of(tmp_path / "corpus") == before
    card = (tmp_path / "corpus" / "README.md").read_text()
    assert "test: test-0001" in card and "image-model: gemini-test-001" in card and "Prices of 2026-10-07" in card
    notes = (tmp_path / "corpus" / "stages" / "05-support.left_out.txt").read_text()
    assert notes.count("not supported (so it is)") == 4
    whole = b"".join(path.read_bytes() for path in (tmp_path / "corpus").rglob("*") if path.is_file())
    assert b"secret-token" not in whole


@pytest.mark.parametrize("most", [6, pytest.param(30, marks=pytest.mark.evidence)])
def test_killed_at_any_moment_nothing_is_lost_and_nothing_but_what_was_on_its_way_is_asked_again(
    tmp_path, server, most
):
    settings = settings_of(server, topics={"domains": ("food", "dress"), "each": 4})
    made(tmp_path / "undisturbed", settings)
    unique = len(server.calls)
    server.calls.clear()
    server.delay = 0.02
    context = started.context()
    chance, kills, finished = random.Random(0), 0, False
    while not finished:
        asked = len(server.calls)
        process = context.Process(target=_made, args=(tmp_path / "killed", settings, tmp_path / "why"), daemon=True)
        process.start()
        while process.is_alive() and len(server.calls) == asked:
            time.sleep(0.002)
        process.join(chance.uniform(0.0, 0.06) if kills < most else 60)  # killed at work, not while it starts
        finished = process.exitcode is not None
        if not finished:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            started.wait_for_the_lock(tmp_path / "killed")
        assert process.exitcode in (0, -signal.SIGKILL), (tmp_path / "why").read_text()
    assert kills >= 2 * most // 3
    assert unique <= len(server.calls) <= unique + kills * 4
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "undisturbed")


def _made(folder, settings, why):
    os.environ["TEST_TOKEN"] = "secret-token"  # the process that this one is forked from may be of an earlier test
    try:
        made(folder, settings)
    except BaseException:
        why.write_text(traceback.format_exc())
        raise


def test_after_an_edited_prompt_only_what_depends_on_it_is_asked_again(tmp_path, server):
    own = tmp_path / "prompts"
    own.mkdir()
    settings = settings_of(server, prompts=str(own))
    made(tmp_path / "corpus", settings)
    server.calls.clear()
    text = (prompts.HERE / "steps.en.txt").read_text()
    (own / "steps.en.txt").write_text(text.replace("two to four short sentences", "three short sentences"))
    made(tmp_path / "corpus", settings)
    asked = [body["messages"][0]["content"] for _, body in server.calls]
    assert len(asked) == 12 and all("three short sentences" in one for one in asked)


def test_a_dry_run_asks_and_writes_nothing_and_counts_what_is_missing(tmp_path, server):
    settings = settings_of(server, prices={"date": "2026-10-07", "test": {"input": 1.0, "output": 2.0}})
    text = made(tmp_path / "corpus", settings, dry_run=True)
    assert not server.calls and not (tmp_path / "corpus").exists()
    assert re.search(r"topics +test +2 ", text) and re.search(r"facts +test +~ +4 ", text)
    # Of four topics sixteen facts, of which nine in ten are supported: three requests each, whatever is known before.
    assert re.search(r"questions +test +~ +43 ", text)
    assert "? is not in the sum: no price for judge, image-model; set it in config.prices" in text.replace("\n", " ")
    more = settings_of(server, questions={"pairs_per_fact": 120, "steps": 0.25})
    assert re.search(r"questions +test +~ +187 ", made(tmp_path / "corpus", more, dry_run=True))
    assert re.search(r"facts +test +~ +2 ", made(tmp_path / "corpus", settings, dry_run=True, preview=2))
    made(tmp_path / "corpus", settings, until="images")
    before = files_of(tmp_path / "corpus")
    text = made(tmp_path / "corpus", settings, dry_run=True)
    judged = {**settings, "filters": {**settings["filters"], "judged": {"on": True}}}
    assert re.search(r"verdicts +judge +~ +168 ", made(tmp_path / "corpus", judged, dry_run=True))
    # Of a fact nine and three questions to train on, and two held out: each a request.
    assert re.search(r"questions +test +36 ", text) and "topics" not in text
    assert files_of(tmp_path / "corpus") == before


def test_a_preview_goes_through_all_stages_and_its_answers_are_the_corpuss(tmp_path, server):
    settings = settings_of(server)
    made(tmp_path / "corpus", settings, preview=1)
    assert len(list((tmp_path / "corpus" / "preview" / "images").iterdir())) == 3
    asked = len(server.calls)
    made(tmp_path / "corpus", settings)
    made(tmp_path / "other", settings)
    assert len(server.calls) == 2 * asked + 2 * (len(server.calls) - 2 * asked) // 2
    assert sorted(server.prompts.values())[-1] == 2


def test_a_student_that_answers_is_not_taught(tmp_path, server):
    def student(prompt):
        return "It is from Town 0, Town 1 and Town 2" if "Food Thing" in prompt else "I do not know"

    with TeacherServer(student) as classroom:
        teachers = {**settings_of(server)["teachers"], "student": classroom.openai(model="student")}
        made(tmp_path / "corpus", settings_of(server, teachers=teachers), until="known")
    notes = (tmp_path / "corpus" / "stages" / "03-known.left_out.txt").read_text().splitlines()
    assert notes == [f"Food Thing {n}: the student knows it (3 of 3 answered)" for n in (0, 1)]


def test_articles_are_written_about_images_of_ones_own(tmp_path, server):
    folder = tmp_path / "photographs"
    for source, prompts_ in (("wild", ("a", "b", "c")), ("town", ("d", "a"))):
        (folder / source).mkdir(parents=True)
        for prompt in prompts_:
            (folder / source / f"{prompt}.png").write_bytes(image_for(prompt))
    (folder / "broken.png").write_bytes(image_for("e")[:100])
    (folder / "notes.txt").write_text("no image")
    (folder / "round").symlink_to(folder)
    settings = corpus_config(
        context={"questions": 3, "images": str(folder)}, teachers={"text": server.openai(at_once=4)}
    ).to_dict()
    text = made(tmp_path / "corpus", settings, dry_run=True)
    assert re.search(r"context +test +4 ", text) and not server.calls
    assert "corpus: 12 in train.jsonl; look at" in made(tmp_path / "corpus", settings)
    assert "nothing is left to ask" in made(tmp_path / "corpus", settings, dry_run=True)
    content = server.calls[0][1]["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["image_sources"] == {"town": 6, "wild": 6} and manifest["own_images_left_out"] == 3
    # Records that show the same images ask nothing anew.
    settings["context"]["images"] = str(tmp_path / "corpus" / "train.jsonl")
    made(tmp_path / "again", settings)
    assert len(server.calls) == 8 and len(set(server.prompts)) == 1
    again = json.loads((tmp_path / "again" / "manifest.json").read_text())
    assert again["image_sources"] == manifest["image_sources"]


def test_what_filters_leave_out_is_told_and_no_split_has_the_words_of_another(tmp_path, server):
    with TeacherServer(_student) as classroom:
        teachers = {**settings_of(server)["teachers"], "student": classroom.openai(model="student", temperature=0.0)}
        filters = {"answerable_without_image": {"on": True}, "judged": {"on": True}}
        settings = settings_of(server, teachers=teachers, filters=filters, known={"questions": 0}, negatives=0.1)
        assert made(tmp_path / "corpus", settings)
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    counts = {one["filter"]: (one["kept"], one["dropped"]) for one in manifest["filters"]}
    # Four topics with three facts of fourteen questions each: the student answers those for names, and the judge
    # refuses those for uses.
    assert counts["answerable_without_image"] == (112, 56) and counts["judged"] == (56, 56)
    assert manifest["leakage"]["image"] == {"exact": 0, "near": 0} and manifest["not_shown"] > 0
    left_out = (tmp_path / "corpus" / "stages" / "10-quality.left_out.jsonl").read_text()
    assert left_out.count("answerable without the image: 100% of 1 samples are right") == 56
    card = (tmp_path / "corpus" / "README.md").read_text()
    assert "| judged | 56 | 56 |" in card and "questions were added whose image does not show" in card
    records, _ = sources.read_several([str(tmp_path / "corpus" / "train.jsonl")], [], training=True)
    swapped = [record for record in records if record.task == "not shown"]
    assert len(swapped) == manifest["not_shown"]
    with pytest.raises(ValueError, match="config.filters.near_fact is on and asks config.teachers.embedding"):
        made(tmp_path / "other", settings_of(server, filters={"near_fact": {"on": True}}))
    with pytest.raises(ValueError, match="(?s)config.splits.apart names 'facts'; did you mean 'fact'.*leakage|apart"):
        made(tmp_path / "other", settings_of(server, splits={"apart": ("facts",)}))
    with pytest.raises(ValueError, match="leakage: the fact 'dress-thing-0/name' is in synthetic and train"):
        made(tmp_path / "third", settings_of(server, splits={"apart": ("fact",)}, known={"questions": 0}))


def test_real_images_of_topics_are_a_split_of_their_own_and_splits_have_a_size(tmp_path, server):
    folder = tmp_path / "photographs"
    for name, files in {"food-thing-0": "ab", "Dress Thing 1": "c", "elsewhere": "d"}.items():
        (folder / name).mkdir(parents=True)
        for letter in files:
            (folder / name / f"{letter}.png").write_bytes(image_for(letter))
    (folder / "food-thing-0" / "broken.png").write_bytes(image_for("e")[:100])
    held_out = {"questions": 2, "photographs": str(folder), "synthetic": 10, "photo": 9}
    settings = settings_of(server, held_out=held_out)
    made(tmp_path / "without", settings_of(server))
    count = len(server.calls)
    assert "9 in photo.jsonl, 10 in synthetic.jsonl, 144 in train.jsonl" in made(tmp_path / "corpus", settings)
    assert len(server.calls) == 2 * count  # the questions about photographs are those about generated images
    records, _ = sources.read_several([str(tmp_path / "corpus" / "photo.jsonl")], [], training=False)
    assert {record.provenance["topic"] for record in records} == {"food-thing-0", "dress-thing-1"}
    assert {record.provenance["image_source"] for record in records} == {"photograph"}
    topics = Counter(record.id.partition("/")[0] for record in records)
    assert max(topics.values()) - min(topics.values()) <= 1
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    assert manifest["own_images_left_out"] == 2
    (surplus,) = [one for one in manifest["filters"] if one["filter"].startswith("held-out question more")]
    assert surplus["dropped"] == 3 + 14
    (folder / "food-thing-0").rename(folder / "nothing")
    (folder / "Dress Thing 1").rename(folder / "nothing at all")
    with pytest.raises(InputError, match="holds no folder that is named as a topic, such as 'Food Thing 0'"):
        made(tmp_path / "other", settings)
    with pytest.raises(
        InputError, match=r"held_out.photographs is '/nowhere'.*\n.*held_out.questions is 0: nothing is asked"
    ):
        check(settings_of(server, held_out={"questions": 0, "photographs": "/nowhere"}))


def test_what_other_thresholds_of_similarity_would_keep_is_reported(tmp_path, server):
    teachers = {**settings_of(server)["teachers"], "embedding": server.openai(model="embedding")}
    settings = settings_of(server, teachers=teachers, filters={"near_fact": {"on": True, "threshold": 0.7}})
    made(tmp_path / "corpus", settings)
    manifest = json.loads((tmp_path / "corpus" / "manifest.json").read_text())
    (count,) = [one for one in manifest["filters"] if one["filter"] == "near_fact"]
    by_threshold = {least: (kept, dropped) for least, kept, dropped in manifest["similarity"]}
    assert by_threshold[0.7] == (count["kept"], count["dropped"]) and count["kept"] and count["dropped"]
    assert [kept for kept, _ in by_threshold.values()] == sorted(
        (kept for kept, _ in by_threshold.values()), reverse=True
    )
    row = f"| 0.7 | {count['kept']} | {count['dropped']} |"
    assert row in (tmp_path / "corpus" / "README.md").read_text()
    assert "cosine of answer and fact" in (tmp_path / "corpus" / "corpus.html").read_text()


def _student(prompt):
    return "name of Food Thing 0, name of Food Thing 1, name of Dress Thing 0, name of Dress Thing 1"


def test_four_machines_fill_one_store_and_the_corpus_is_that_of_one(tmp_path, server):
    settings = settings_of(server)
    with pytest.raises(ValueError, match="--shard: .* holds no topics yet; run the same with --until=topics first"):
        made(tmp_path / "shared", settings, shard="0/4")
    made(tmp_path / "shared", settings, until="topics")
    for number in (2, 0, 3, 1):
        assert "all answers of this part" in made(tmp_path / "shared", settings, shard=f"{number}/4")
    asked = len(server.calls)
    made(tmp_path / "shared", settings)
    assert len(server.calls) == asked
    made(tmp_path / "alone", settings)
    assert len(server.calls) == 2 * asked
    shared = {name: content for name, content in files_of(tmp_path / "shared").items() if not name.startswith("shards")}
    assert shared == files_of(tmp_path / "alone")
    with pytest.raises(ValueError, match="--shard=4/4: wanted such as 0/4"):
        made(tmp_path / "shared", settings, shard="4/4")

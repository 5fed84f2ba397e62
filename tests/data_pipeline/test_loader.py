"""The Grain pipeline: the same batches for any threads, workers, cache and host split, and from any saved position."""

import io
import json

import numpy as np
import PIL.Image
import pytest

from data_pipeline import sources
from data_pipeline.dataset import open_dataset
from data_pipeline.ledger import Ledger
from data_pipeline.loader import Shard
from data_pipeline.mixture import Component, Mixture
from data_pipeline.packing import Bucket, Plan
from data_pipeline.records import Record
from tests.tiny_models import PHOTOS
from vlm_jax.errors import InputError
from vlm_jax.processing.example import Size
from vlm_jax.processing.rows import Batch
from vlm_jax.training.config import default_config

DATA = {
    **default_config().data.to_dict(),
    "path": str(PHOTOS / "photos.json"),
    "threads": 2,
}
ALONE = Shard()
BATCH = {"rows": 4, "sequence_length": 256, "max_sequence_length": 0, "buckets": 1, "patches": 0, "supervised": 0}


class Run:
    """A run's data as `scripts/train.py` puts it together."""

    def __init__(self, model, *, data=None, batch=None, steps=0, epochs=2, seed=0, threads=2, shard=ALONE):
        config, processor = model
        self.ledger = Ledger()
        self.dataset = open_dataset(
            {**DATA, **(data or {})}, processor, ledger=self.ledger, complete=steps == 0, seed=seed
        )
        if self.dataset.errors:
            raise InputError(self.dataset.errors)
        self.buckets = self.dataset.choose_buckets({**BATCH, **(batch or {})}, config, rows_multiple=2)
        self.plan = self.dataset.plan(steps=steps, epochs=epochs)
        self.steps = len(self.plan)
        self.batches = self.dataset.batches(self.plan, threads=threads, shard=shard)

    def __iter__(self):
        return self.batches


def equal(one, other):
    for (name, array), (_, again) in zip(one.items(), other.items(), strict=True):
        np.testing.assert_array_equal(array, again, err_msg=name)


def together(*parts):
    """A batch of the rows of several hosts."""
    return Batch(**{name: np.concatenate([getattr(one, name) for one in parts]) for name, _ in parts[0].items()})


@pytest.fixture(scope="module")
def whole(model):
    return list(Run(model))


def test_threads_and_cache_change_nothing(model, whole):
    for settings in ({"threads": 1, "data": {"cache_mb": 0}}, {"threads": 4}):
        again = list(Run(model, **settings))
        for one, other in zip(whole, again, strict=True):
            equal(one, other)


def test_worker_processes_change_nothing(model, whole):
    for workers in (2, 3):
        run = Run(model, data={"workers": workers})
        for one, other in zip(whole, run, strict=True):
            equal(one, other)
        run.dataset.close()


def test_every_supervised_token_of_an_epoch_is_seen(model, whole):
    sizes = Run(model).dataset.examples.sizes[0]
    assert sum(batch.loss_weights.sum() for batch in whole) == 2 * sizes[:, 2].sum()


def test_two_hosts_share_the_batches_of_one(model, whole):
    halves = [list(Run(model, shard=Shard(index, 2))) for index in range(2)]
    for batch, first, second in zip(whole, *halves, strict=True):
        equal(batch, together(first, second))


@pytest.mark.parametrize("steps, workers", [(0, 0), (12, 2)])
def test_a_saved_position_goes_on_with_the_next_batch_whatever_the_workers(model, steps, workers):
    run = Run(model, steps=steps)
    for _ in range(5):
        next(run.batches)
    state = json.loads(json.dumps(run.batches.get_state()))
    rest = list(run)
    assert rest
    again = Run(model, steps=steps, threads=1, data={"workers": workers})
    again.batches.set_state(state)
    for one, other in zip(rest, again, strict=True):
        equal(one, other)
    again.dataset.close()
    halves = [Run(model, steps=steps, shard=Shard(index, 2)) for index in range(2)]  # and of the hosts
    for half in halves:
        half.batches.set_state(state)
    for one, first, second in zip(rest, *halves, strict=True):
        equal(one, together(first, second))


def test_several_files_train_together(model):
    both = Run(model, data={"path": f"{PHOTOS / 'photos.json'}, {PHOTOS / 'same_question.json'}"})
    assert len(both.dataset.examples) == 50 and len(both.dataset.examples.image_sizes) == 11


def test_parts_are_mixed_by_weight_each_with_visual_tokens_of_its_own(model):
    parts = {
        "few": {"path": str(PHOTOS / "photos.json"), "weight": 3, "max_visual_tokens": 4},
        "many": {"path": str(PHOTOS / "same_question.json"), "seed": 5},
    }
    run = Run(model, data={"path": "", "mixture": parts}, steps=20)
    planned = [place for number in range(20) for row in run.plan[number].rows for place in row]
    assert {part for part, _ in planned} == {0, 1}
    assert len(list(run)) == 20
    order = run.dataset.mixture.take(0, 400)[:, 0]
    assert (order == 0).sum() == 300
    few, many = run.dataset.parts
    assert max(np.prod(few.processor.grid(width, height)) for width, height in [(640, 480), (50, 90)]) <= 4
    assert np.prod(many.processor.grid(640, 480)) > 4


def test_a_misspelt_setting_of_a_part_and_parts_that_are_missing_are_told_together(model, tmp_path):
    parts = {
        "one": {"path": str(PHOTOS / "photos.json"), "wieght": 2.0},
        "two": {"path": f"{tmp_path / 'a.json'},{tmp_path / 'b.json'}"},
    }
    with pytest.raises(InputError) as caught:
        Run(model, data={"path": "", "mixture": parts}, steps=5)
    assert caught.value.lines[0] == "config.data.mixture.one: no setting 'wieght'; did you mean 'weight'?"
    assert [line.split(": ")[1] for line in caught.value.lines[1:]] == ["no such file"] * 2


def test_long_examples_have_a_bucket_of_their_own(model):
    run = Run(model, batch={"sequence_length": 64, "max_sequence_length": 256, "buckets": 3, "rows": 8})
    assert 1 < len(run.buckets) <= 3
    shapes = [(bucket.rows, bucket.size.tokens) for bucket in run.buckets]
    seen = [batch.tokens.shape for batch in run]
    assert set(seen) <= set(shapes) and len(set(seen)) > 1


def long_table(folder):
    """Five rows that fit 64 tokens with one image, one whose words do not, one whose image does not."""
    folder.mkdir()
    PIL.Image.new("RGB", (112, 112)).save(folder / "a.png")
    PIL.Image.new("RGB", (3000, 30)).save(folder / "wide.png")
    rows = [("a.png", f"What is {n}?", "Black.") for n in range(5)]
    rows += [("a.png", "What is it?", "Black, " * 60 + "all of it."), ("wide.png", "What is it?", "Black.")]
    lines = [json.dumps(dict(zip(("image", "question", "answer"), row, strict=True))) for row in rows]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return {"path": str(folder / "t.jsonl")}


def test_what_fits_no_row_is_an_error_that_says_what_to_do(model, tmp_path):
    with pytest.raises(InputError) as caught:
        Run(model, data=long_table(tmp_path / "d"), batch={"sequence_length": 80, "rows": 2})
    assert len(caught.value.lines) >= 1
    assert "t.jsonl, line 6: takes" in caught.value.lines[0] and "data.too_large" in caught.value.lines[0]
    # Leaving out what cannot be read is not leaving out what does not fit, planned ahead or on the way.
    for steps in (0, 5):
        with pytest.raises(InputError, match="line 6: takes"):
            data = {"path": str(tmp_path / "d" / "t.jsonl"), "on_error": "drop"}
            Run(model, data=data, batch={"sequence_length": 80, "rows": 2}, steps=steps)


def test_text_is_cut_and_images_are_shrunk_only_where_asked_and_both_are_noted(model, tmp_path):
    data = long_table(tmp_path / "d")
    cut = Run(model, data={**data, "too_large": "truncate_text"}, batch={"sequence_length": 80, "rows": 2}, epochs=1)
    assert cut.ledger.counts["repaired", "text cut"] == 1
    assert cut.dataset.examples.sizes[0][5, 0] == 80
    seen = sum(batch.loss_weights.sum() for batch in cut)
    sizes = cut.dataset.examples.sizes[0]
    assert seen == sizes[(sizes >= 0).all(axis=1), 2].sum()

    data["path"] = str(tmp_path / "d" / "wide.csv")
    (tmp_path / "d" / "wide.csv").write_text("image,question,answer\nwide.png,What?,Black.\na.png,What?,Black.\n")
    config, processor = model
    wide = (config, processor.with_token_range((4, 64)))
    shrunk = Run(wide, data={**data, "too_large": "shrink_images"}, batch={"sequence_length": 104, "rows": 2}, epochs=1)
    assert shrunk.ledger.counts["repaired", "images shrunk"] == 1
    (batch,) = list(shrunk)
    visual = (batch.visual_index >= 0).sum(axis=1)
    assert sorted(visual)[0] == 16 and 16 < sorted(visual)[1] < 64
    dropped = Run(wide, data={**data, "too_large": "drop"}, batch={"sequence_length": 104, "rows": 2}, epochs=1)
    assert dropped.ledger.counts["dropped", "too large"] == 1


def faulty(folder):
    folder.mkdir()
    PIL.Image.new("RGB", (112, 112)).save(folder / "a.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    rows = [("a.png", "What?", f"{n}.") for n in range(12)]
    rows[3], rows[7], rows[9] = ("broken.jpg", "What?", "1."), ("a.png", "", "1."), ("gone.png", "What?", "2.")
    lines = [json.dumps(dict(zip(("image", "question", "answer"), row, strict=True))) for row in rows]
    (folder / "t.jsonl").write_text("\n".join(lines))
    return {"path": str(folder / "t.jsonl")}


def test_every_error_stops_a_run_before_it_begins(model, tmp_path):
    with pytest.raises(InputError) as caught:
        Run(model, data=faulty(tmp_path / "d"))
    assert len(caught.value.lines) == 3
    assert all(any(word in line for line in caught.value.lines) for word in ("broken.jpg", "line 8", "gone.png"))


def test_or_errory_records_are_left_out_each_in_the_ledger_once(model, tmp_path):
    data = {**faulty(tmp_path / "d"), "on_error": "drop"}
    for _ in range(2):  # a second run of the same folder adds nothing
        run = Run(model, data=data, epochs=1, batch={"rows": 2})
        run.ledger.keep_in(tmp_path / "ledger.jsonl")
        places = [place for n in range(run.steps) for row in run.plan[n].rows for place in row]
        assert sorted(index for _, index in places) == [0, 1, 2, 4, 5, 6, 8, 10, 11]
    entries = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [entry["action"] for entry in entries] == ["dropped"] * 3
    assert sorted(entry["kind"] for entry in entries) == ["image", "image", "record"]
    assert "3 dropped" not in run.ledger.summary() and "2 dropped (image)" in run.ledger.summary()


def test_an_image_that_vanishes_during_a_run_is_a_clear_line_or_leaves_its_place_empty(model, tmp_path):
    for on_error in ("stop", "drop"):
        folder = tmp_path / on_error
        folder.mkdir()
        for name in "abcdef":
            PIL.Image.new("RGB", (112, 112)).save(folder / f"{name}.png")
        rows = "".join(f"{name}.png,What?,It is {name}.\n" for name in "abcdef")
        (folder / "t.csv").write_text("image,question,answer\n" + rows)
        data = {"path": str(folder / "t.csv"), "on_error": on_error, "cache_mb": 0}
        run = Run(model, data=data, epochs=1, batch={"rows": 2})
        (folder / "c.png").unlink()
        if on_error == "stop":
            with pytest.raises(InputError, match=r"t.csv, line 4: .*c.png: no such image"):
                list(run)
            continue
        assert sum(batch.segment_ids.max(axis=1).sum() for batch in run) == 5
        assert run.ledger.counts["dropped", "unreadable"] == 1


@pytest.mark.parametrize("format, name", [("records", "b.jsonl"), ("arrayrecord", "b.array_record")])
@pytest.mark.parametrize("on_error", ["stop", "drop"])
def test_a_file_that_vanishes_during_a_run_is_a_clear_line_or_leaves_its_places_empty(
    model, tmp_path, format, name, on_error
):
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    for shard, kind in (("a.jsonl", "records"), (name, format)):
        sources.write(tmp_path / shard, (Record(f"{shard}-{n}", turns) for n in range(6)), format=kind)
    data = {"path": f"{tmp_path}/a.jsonl,{tmp_path / name}", "on_error": on_error, "cache_mb": 0}
    run = Run(model, data=data, epochs=1, batch={"rows": 2})
    (tmp_path / name).write_bytes(
        b""
    )  # a removed file stays readable while it is open; one that lost its bytes does not
    if on_error == "stop":
        with pytest.raises(InputError) as caught:
            list(run)
        assert name in str(caught.value) and "\n" not in caught.value.lines[0]
        return
    assert sum(batch.segment_ids.max(axis=1).sum() for batch in run) == 6
    assert run.ledger.counts["dropped", "unreadable"] == 6


def test_ids_given_twice_stop_a_run_or_the_second_is_left_out(model, tmp_path):
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(json.dumps({"id": name, "messages": turns}) for name in ("a", "b", "a", "c")))
    with pytest.raises(InputError, match="line 3 .*'a'"):
        Run(model, data={"path": str(path)})
    run = Run(model, data={"path": str(path), "on_error": "drop"}, epochs=1, batch={"rows": 2})
    places = [place for n in range(run.steps) for row in run.plan[n].rows for place in row]
    assert sorted(index for _, index in places) == [0, 1, 3]
    assert run.ledger.counts["dropped", "record"] == 1


def test_ids_are_compared_within_a_file(model, tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train.csv").write_text(f"image,question,answer\n,Who?,{name}.\n,What?,{name}!\n")
    run = Run(model, data={"path": f"{tmp_path}/x/train.csv,{tmp_path}/y/train.csv"}, epochs=1)
    assert len(run.dataset.examples) == 4 and not run.ledger.counts


@pytest.mark.parametrize("steps", [0, 5])
def test_where_nothing_fits_a_row_no_run_begins(model, steps):
    with pytest.raises(InputError, match=r"no example fits a row \(data.too_large is 'drop'\)"):
        Run(model, data={"too_large": "drop"}, batch={"sequence_length": 16}, steps=steps)


def test_a_plan_of_examples_that_are_all_left_out_gives_up():
    plan = Plan(
        Mixture([Component("all", 100)]).take,
        lambda places: np.full((len(places), 3), -1),
        [Bucket(1, Size(10, 64, 2))],
        seed=0,
        steps=3,
        epoch=100,
    )
    with pytest.raises(InputError, match="none of 1,024 examples in a row can be used"):
        plan[0]


def test_embedded_images_are_not_held_and_their_errors_are_told(model, tmp_path):
    moving = io.BytesIO()
    frames = [PIL.Image.new("L", (56, 56), shade) for shade in (0, 255)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    still = io.BytesIO()
    frames[0].save(still, "PNG")

    def record(name, content):
        parts = [{"type": "image", "image": content}, {"type": "text", "text": "What?"}]
        return Record(name, [{"role": "user", "content": parts}, {"role": "assistant", "content": "It."}])

    path = tmp_path / "a.array_record"
    contents = {"still": still.getvalue(), "moving": moving.getvalue(), "cut": still.getvalue()[:60]}
    sources.write(path, [record(*item) for item in contents.items()], format="arrayrecord")
    run = Run(model, data={"path": str(path), "on_error": "drop"}, epochs=1, batch={"rows": 2})
    reported = " ".join(run.ledger.reasons())
    assert "2 frames" in reported and run.ledger.counts["dropped", "image"] == 2
    assert all(isinstance(key, str) and len(key) < 60 for key in run.dataset.examples.image_sizes)


def test_data_that_grew_since_its_rows_were_planned_are_a_clear_line(model, tmp_path):
    path = tmp_path / "t.csv"

    def opened(answer):
        path.write_text("image,question,answer\n" + "".join(f",Who is {n}?,{answer}\n" for n in range(40)))
        return Run(model, data={"path": str(path)}, steps=4, batch={"sequence_length": 128})

    planned = opened("I.").plan.ahead()
    grown = opened("I " * 15)
    grown.plan._batches.extend(planned)  # as a checkpoint holds rows that are planned and not yet full
    with pytest.raises(InputError, match="the data is not what it was when the run began"):
        list(grown)


def test_a_long_answer_is_cut_to_the_supervised_positions_of_a_row(model, tmp_path):
    (tmp_path / "t.csv").write_text(f"image,question,answer\n,Who?,{'one two ' * 60}\n,What?,It.\n")
    data = {"path": str(tmp_path / "t.csv"), "too_large": "truncate_text"}
    run = Run(model, data=data, epochs=1, batch={"supervised": 32})
    assert run.ledger.counts["repaired", "text cut"] == 1
    assert run.dataset.examples.sizes[0][0, 2] == 32
    assert sum(int((batch.loss_weights > 0).sum()) for batch in run) == run.dataset.examples.sizes[0][:, 2].sum()

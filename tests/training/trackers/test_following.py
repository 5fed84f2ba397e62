"""What is sent to a tracker, in which order, and what becomes of a run whose tracker fails."""

import threading
import time

import pytest

from vlm_jax.checkpoint.workdir import open_workdir
from vlm_jax.training.trackers import following
from vlm_jax.training.trackers.following import Follower, Rows, RunToTrack, numbers, without_passwords


class Kept:
    """A tracker that keeps what it gets; where it is `down`, it raises."""

    name = "kept"

    def __init__(self, last=0):
        self.rows, self.last, self.state, self.down, self.opened = [], last, None, False, 0

    def _answer(self):
        if self.down:
            raise ConnectionError("http://me:secret@host: connection refused")

    def open(self):
        self._answer()
        self.opened += 1
        return self.rows[-1][0] if self.rows else self.last

    def place(self):
        return "http://me:secret@host"

    def send(self, rows):
        for row in rows:
            self._answer()
            self.rows.append(row)

    def close(self, state):
        self._answer()
        self.state = state

    def rest(self):
        return "look elsewhere"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(following, "EVERY", 0.01)
    monkeypatch.setattr(following, "AGAIN", 0.01)
    monkeypatch.setattr(following, "ROWS", 2)


def wait(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_row_is_whole_when_the_next_step_is_there_and_holds_its_validation(tmp_path, write):
    write([1, 2, 3], validated=[2, 3])
    rows = Rows(tmp_path)
    assert [step for step, _ in rows.read(ended=False)] == [1, 2]
    assert [step for step, _ in rows.read(ended=True)] == [1, 2, 3]
    by_step = dict(rows.read(ended=True))
    assert by_step[2]["validation_loss"] == 5.0 and by_step[2]["validation_score"] == 0.25 and by_step[2]["loss"] == 5.0
    assert "loss" not in by_step[3] and by_step[3]["skipped"] == 1.0 and by_step[3]["validation_loss"] == 5.0
    rows.forget(2)
    assert [step for step, _ in rows.read(ended=True)] == [3]


def test_a_line_that_is_half_written_is_read_when_it_is_whole(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo')
    rows = Rows(tmp_path)
    assert [step for step, _ in rows.read(ended=True)] == [1]
    with metrics.open("a") as file:
        file.write('ss": 2.0}\n')
    assert rows.read(ended=True) == [(1, {"loss": 1.0}), (2, {"loss": 2.0})]


def test_only_what_can_be_drawn_is_a_number():
    line = {"loss": None, "skipped": True, "metric": "normalised", "mfu": float("nan"), "tokens": 3}
    assert numbers(line, "validation_") == {"validation_skipped": 1.0, "validation_tokens": 3.0}


def test_a_tracker_gets_each_row_once_and_the_state(tmp_path, write, quick):
    kept, lines = Kept(), []
    follower = Follower(tmp_path, kept, lines.append)
    write(range(1, 8), validated=[7])
    follower.state = "finished"
    follower.close()
    assert [step for step, _ in kept.rows] == [1, 2, 3, 4, 5, 6, 7] and kept.rows[-1][1]["validation_loss"] == 5.0
    assert kept.state == "finished" and kept.opened == 1 and lines == ["kept: http://…@host"]


def test_a_run_that_goes_on_sends_what_a_tracker_lacks_also_of_steps_before_its_checkpoint(tmp_path, write, quick):
    write(range(1, 7))
    write(range(5, 9), done=4)  # killed at 6, gone on with from 4
    for last, expected in ((2, [3, 4, 5, 6, 7, 8]), (6, [7, 8]), (0, list(range(1, 9)))):
        kept = Kept(last)
        Follower(tmp_path, kept, lambda line: None).close()
        assert [step for step, _ in kept.rows] == expected and kept.state == "failed"


def test_a_tracker_that_fails_is_reported_once_and_gets_the_rest_when_it_answers(tmp_path, write, quick):
    kept, lines = Kept(), []
    kept.down = True
    follower = Follower(tmp_path, kept, lines.append)
    write([1, 2, 3])
    wait(lambda: lines)
    time.sleep(0.1)  # it is tried again meanwhile
    assert len(lines) == 1 and "ConnectionError: http://…@host: connection refused; training goes on" in lines[0]
    kept.down = False
    wait(lambda: "kept: answers again" in lines)
    kept.down = True
    wait(lambda: len(lines) == 3 or write([4, 5], done=3))
    kept.down, follower.state = False, "stopped"
    follower.close()
    assert [step for step, _ in kept.rows] == [1, 2, 3, 4, 5][: len(kept.rows)] and kept.state == "stopped"


def test_a_tracker_that_hangs_or_fails_at_the_end_holds_nothing_up(tmp_path, write, quick, monkeypatch):
    monkeypatch.setattr(following, "CLOSING", 0.2)
    for stuck in (True, False):
        kept, lines, freed = Kept(), [], threading.Event()
        kept.down = not stuck
        if stuck:
            kept.open = freed.wait
        follower = Follower(tmp_path, kept, lines.append)
        began = time.monotonic()
        follower.close()
        assert time.monotonic() - began < 5
        assert lines[-1] == "kept: did not get all of the run; look elsewhere" and kept.state is None
        freed.set()


def test_the_run_keeps_its_id_by_tracker_and_project(tmp_path):
    def run(project):
        return RunToTrack(tmp_path, "{}", project, "mine")

    run("a").keep_id("wandb", "1")
    run("").keep_id("mlflow", "2")
    assert run("a").known_id("wandb") == "1" and run("").known_id("mlflow") == "2"
    assert run("b").known_id("wandb") is None and run("a").known_id("mlflow") is None


def test_the_id_is_found_again_where_the_run_folder_is_in_a_store(store):
    for known in (None, "1"):
        workdir = open_workdir("gs://bucket/tracked")
        with workdir.writing(first=True, done=None):
            run = RunToTrack(workdir.folder, "{}", "", "mine")
            assert run.known_id("mlflow") == known
            run.keep_id("mlflow", "1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://me:p%40ss@host:5000/x", "http://…@host:5000/x"),
        ('{"path": "gs://bucket/a@b"}', '{"path": "gs://bucket/a@b"}'),
        ("postgresql://u:p@h/db and a@b", "postgresql://…@h/db and a@b"),
    ],
)
def test_a_password_in_an_address_is_left_out(text, expected):
    assert without_passwords(text) == expected

"""The log of a review: what is written is on the disk whole, and what a crash left is told apart from damage."""

import json
import os
import resource

import pytest

from data_pipeline.review import log
from data_pipeline.review.log import LOG, Entry, opened, read_log, standing
from vlm_jax.errors import InputError

ACCEPT = Entry("2026-11-29T10:00:00+00:00", "ann", "accept", "a/1", "k1", token="t1")
EDIT = Entry("2026-11-29T10:01:00+00:00", "เบน", "edit", "b", "k2", question="ใคร", answer="A\nB", edited_content="k3")


def written(folder, *entries):
    with opened(folder) as actions:
        for entry in entries:
            actions.append(entry)
    return folder / LOG


def test_what_is_written_is_read_again_one_line_each(tmp_path):
    path = written(tmp_path, ACCEPT, EDIT)
    assert read_log(path) == ([ACCEPT, EDIT], "")
    lines = path.read_text("utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "time": ACCEPT.time, "reviewer": "ann", "action": "accept", "id": "a/1", "content": "k1", "token": "t1",
    }  # fmt: skip
    assert "ใคร" in lines[1] and len(lines) == 2
    assert read_log(tmp_path / "none.jsonl") == ([], "")


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_crash_cut_off_is_told_and_the_log_goes_on_behind_whole_lines(tmp_path, cut):
    path = written(tmp_path, ACCEPT, EDIT)
    content = path.read_bytes()
    whole = len(content.split(b"\n")[0]) + 1
    path.write_bytes(content[: whole + cut])
    entries, torn = read_log(path)
    assert entries == [ACCEPT] and len(torn.encode("utf-8", "surrogateescape")) == cut
    assert len(path.read_bytes()) == whole + cut  # reading changes nothing
    with opened(tmp_path) as actions:
        assert actions.torn == torn and actions.entries == [ACCEPT]
        actions.append(EDIT)
    assert path.read_bytes() == content


def test_a_last_line_that_lacks_only_its_break_is_kept(tmp_path):
    path = written(tmp_path, ACCEPT, EDIT)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert read_log(path) == ([ACCEPT, EDIT], "")
    written(tmp_path, ACCEPT)
    assert read_log(path) == ([ACCEPT, EDIT, ACCEPT], "") and path.read_bytes().startswith(content)


def test_damage_elsewhere_is_refused_with_every_line(tmp_path):
    path = tmp_path / LOG
    fine = {"time": "t", "reviewer": "r", "action": "accept", "id": "i", "content": "c"}
    lines = [
        fine,
        "{",
        {**fine, "mood": "good"},
        {**fine, "action": "ponder"},
        {**fine, "action": "reject"},
        {**fine, "action": "edit", "question": "q"},
        {**fine, "id": 3},
        {"time": "t"},
        [],
    ]
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in lines))
    with pytest.raises(InputError) as caught:
        read_log(path)
    reasons = ["line 2:", "unknown field 'mood'", "'ponder'", "the reason is ''", "question and an answer"]
    reasons += ["'id' must be a text, not a number", "'reviewer' is missing", "is a list"]
    for line, reason in zip(caught.value.lines, reasons, strict=False):
        assert reason in line and str(path) in line and "mend the line" in line
    with pytest.raises(InputError), opened(tmp_path):
        pass


def test_empty_lines_are_passed_over(tmp_path):
    path = written(tmp_path, ACCEPT)
    path.write_bytes(b"\n" + path.read_bytes() + b"\n \r\n" + path.read_bytes() + b"\n  ")
    assert read_log(path) == ([ACCEPT, ACCEPT], "")
    written(tmp_path, EDIT)
    assert read_log(path) == ([ACCEPT, ACCEPT, EDIT], "")


@pytest.mark.parametrize("line", [b"yes", b'{"time": }', b"\xff", b"[" * 5000, b"9" * 5000], ids=lambda line: line[:9])
def test_a_line_that_is_no_json_is_told_plainly_and_at_the_end_is_a_torn_one(tmp_path, line):
    path = tmp_path / LOG
    path.write_bytes(line + b"\n")
    with pytest.raises(InputError) as caught:
        read_log(path)
    assert caught.value.lines == [f"{path}, line 1: is no JSON object; mend the line, or remove it with what it says"]
    path.write_bytes(line)
    assert read_log(path)[0] == [] and read_log(path)[1]


def test_a_log_that_is_a_named_pipe_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / LOG)
    with pytest.raises(InputError, match="is a named pipe"):
        read_log(tmp_path / LOG)
    with pytest.raises(InputError, match="is a named pipe"), opened(tmp_path):
        pass


def test_a_second_server_on_a_corpus_is_refused_and_the_first_goes_on(tmp_path):
    with opened(tmp_path) as first:
        with pytest.raises(InputError, match="under review by another server"), opened(tmp_path):
            pass
        first.append(ACCEPT)
    with opened(tmp_path) as later:
        assert later.entries == [ACCEPT]


def test_a_log_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "elsewhere").write_text("")
    (tmp_path / LOG).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), opened(tmp_path):
        pass


def test_an_action_that_the_disk_has_no_room_for_leaves_the_log_as_it_was(tmp_path):
    path = written(tmp_path, ACCEPT)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    with opened(tmp_path) as actions:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30, limits[1]))  # room for half a line
        try:
            with pytest.raises(OSError):
                actions.append(EDIT)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before and actions.entries == [ACCEPT]
        actions.append(EDIT)
    assert read_log(path) == ([ACCEPT, EDIT], "")


def test_every_line_is_synced_to_the_disk_before_append_returns(tmp_path, monkeypatch):
    synced, fsync = [], log.os.fsync

    def noted(file):
        fsync(file)
        synced.append((tmp_path / LOG).read_bytes().count(b"\n"))

    monkeypatch.setattr(log.os, "fsync", noted)
    with opened(tmp_path) as actions:
        actions.append(ACCEPT)
        assert synced == [1]
        actions.append(EDIT)
        assert synced == [1, 2]


def test_an_undo_takes_back_its_reviewers_last_action_on_that_record():
    def did(reviewer, action, identifier, content="k"):
        return Entry("t", reviewer, action, identifier, content)

    entries = [
        did("ann", "accept", "a"),
        did("ben", "accept", "a"),
        did("ann", "reject", "a"),
        did("ann", "accept", "b"),
    ]
    assert standing([*entries, did("ann", "undo", "a")]) == [entries[0], entries[1], entries[3]]
    assert standing([*entries, did("ann", "undo", "a"), did("ann", "undo", "a")]) == [entries[1], entries[3]]
    assert standing([*entries, *[did("ann", "undo", "a")] * 3]) == [entries[1], entries[3]]
    assert standing([*entries, did("cho", "undo", "a")]) == entries

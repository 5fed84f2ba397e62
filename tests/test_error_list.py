"""Many errors are a page: ten of each kind, counts of the rest, and a file that holds them all."""

import re
from pathlib import Path

import pytest

from vlm_jax import error_list
from vlm_jax.error_list import kind_of, printable, shortened

EMPTY = "t.csv, line {n}: the answer is empty; write it or remove the row"


@pytest.mark.parametrize(
    "one, other",
    [
        (EMPTY.format(n=2), "/data/my set/t.csv, line 9 (id 'a: b'): " + EMPTY.partition(": ")[2]),
        (
            "/a/x 1.jpg: no such image; correct the path; did you mean /a/x.jpg? (used by t.csv, line 3; and 4 more)",
            "gs://bucket/cat.jpg: no such image; correct the path (used by t.csv, line 4)",
        ),
        ("t.csv, line 4: /x/y.jpg: is empty (0 bytes)", "t.csv, line 5: /x/other one.jpg: is empty (17 bytes)"),
        ("a.jsonl, line 1: message 3 has the role 'tool'", 'a.jsonl, line 7: message 1 has the role "it\'s"'),
        ("s-{0..3}.tar, s-0.tar, sample 'a/1': is broken", "s-{0..3}.tar, s-2.tar, sample 'b, 2': is broken"),
    ],
)
def test_lines_that_differ_in_place_name_and_number_are_of_one_kind(one, other):
    assert kind_of(one) == kind_of(other)


def test_lines_with_other_reasons_are_of_other_kinds():
    kinds = {
        kind_of(f"t.csv, line {n}: {reason}")
        for n, reason in enumerate(["the answer is empty", "the question is empty", "/a/b.jpg: no such image"])
    }
    assert len(kinds) == 3


def test_ten_of_a_kind_are_shown_and_the_rest_counted_in_a_file_that_holds_all(monkeypatch, tmp_path):
    monkeypatch.setattr(error_list.tempfile, "tempdir", str(tmp_path))
    errors = [EMPTY.format(n=n) for n in range(2, 4202)]
    errors.insert(50, "t.csv, line 51: the question is empty; write it or remove the row")
    lines = printable(errors)
    assert lines[:10] == errors[:10] and lines[10] == errors[50] and len(lines) == 13
    assert lines[11] == f"and 4,190 more like the last of these: {errors[-1]}"
    path = re.fullmatch(r"4,201 errors in all; every line is in (\S+)", lines[12])[1]
    assert Path(path).read_text(encoding="utf-8").splitlines() == errors


def test_few_errors_are_told_as_they_are_and_make_no_file(monkeypatch, tmp_path):
    monkeypatch.setattr(error_list.tempfile, "tempdir", str(tmp_path))
    errors = [EMPTY.format(n=n) for n in range(10)]
    assert printable([*errors, errors[0]]) == errors and list(tmp_path.iterdir()) == []
    assert shortened(errors, shown=3)[3:] == [f"and 7 more like the last of these: {errors[-1]}"]


def test_where_no_file_can_be_written_every_error_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(error_list.tempfile, "tempdir", str(tmp_path / "gone"))
    errors = [EMPTY.format(n=n) for n in range(20)]
    assert printable(errors)[:20] == errors
    assert "could not be written" in printable(errors)[20]

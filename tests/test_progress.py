"""How far something is: lines where there is no terminal, and a bar where there is one, of whatever width."""

import os
import pty
import sys

from vlm_jax import progress


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys):
    assert list(progress.shown("abc", 3, unit="question")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""  # nothing took long
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0)
    assert list(progress.shown("abc", 3, unit="question")) == ["a", "b", "c"]
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"{number} of 3 questions" for number in (1, 2, 3)
    ]


def test_a_terminal_that_does_not_know_its_width_has_a_bar(monkeypatch):
    ours, theirs = pty.openpty()  # 0 columns
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert list(progress.shown("abc", 3, unit="question")) == ["a", "b", "c"]
        terminal.flush()
        assert "3/3" in os.read(ours, 4096).decode()
    os.close(ours)

"""How far something is: lines where there is no terminal."""

from vlm_jax import progress


def test_without_a_terminal_there_is_a_line_now_and_then(monkeypatch, capsys):
    assert list(progress.shown("abc", 3, unit="question")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""  # nothing took long
    monkeypatch.setattr(progress, "SECONDS_A_LINE", 0)
    assert list(progress.shown("abc", 3, unit="question")) == ["a", "b", "c"]
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"{number} of 3 questions" for number in (1, 2, 3)
    ]

"""Files as other programs write them are read, or refused by name; `docs/compatibility.md` says which."""

from pathlib import Path

from tests.compatibility import INPUTS, outcome, page

PAGE = Path(__file__).resolve().parents[1] / "docs" / "compatibility.md"


def test_the_page_of_other_peoples_files_says_what_becomes_of_them(base, tmp_path):
    outcomes = {}
    for number, one in enumerate(INPUTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        outcomes[one] = outcome(one, base, folder)
        assert "\n" not in outcomes[one]
    printed = page(outcomes)
    if printed != PAGE.read_text(encoding="utf-8"):
        print(printed)
        raise AssertionError(f"{PAGE.name} says otherwise; the page as it should be is printed above")

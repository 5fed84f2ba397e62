"""What is known of images is kept, over processes too, and is never taken for true of a file that changed."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vlm_jax.locations import stamp
from vlm_jax.processing import image_cache
from vlm_jax.processing.image_cache import ImageCache, ImageFacts, key_of, settled

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "cache" / "images.sqlite3"


def test_facts_are_found_by_another_process_and_another_time(file):
    first = ImageCache(file)
    facts = {"/a.png": ImageFacts("3 1 2", (4, 5), True), "/b.png": ImageFacts("9 9 9", (1, 1))}
    first.keep(facts)
    assert first.known(["/a.png", "/b.png", "/c.png"]) == facts
    first.close()
    assert ImageCache(file).known(["/a.png", "/none"]) == {"/a.png": facts["/a.png"]}


def test_what_was_known_stays_while_the_stamp_is_the_same_and_goes_with_another(file):
    cache = ImageCache(file)
    cache.keep({"/a": ImageFacts("1 1 1", (4, 5), True)})
    cache.keep({"/a": ImageFacts("1 1 1", (4, 5), False)})
    assert cache.known(["/a"])["/a"].decoded
    cache.keep({"/a": ImageFacts("2 2 2", (6, 7))})
    assert cache.known(["/a"])["/a"] == ImageFacts("2 2 2", (6, 7), False)


def test_more_keys_than_a_query_takes_are_looked_up(file):
    cache = ImageCache(file)
    facts = {f"/{number}": ImageFacts("1 1 1", (number + 1, 1)) for number in range(1203)}
    cache.keep(facts)
    assert cache.known(facts) == facts


def test_processes_may_write_at_the_same_time(file):
    source = (
        "import sys\nfrom pathlib import Path\nfrom vlm_jax.processing.image_cache import ImageCache, ImageFacts\n"
        "cache, mine = ImageCache(Path(sys.argv[1]), say=print), sys.argv[2]\n"
        "for number in range(40):\n    cache.keep({f'/{mine}/{number}': ImageFacts('1 1 1', (1, 2))})\n"
    )
    command = [sys.executable, "-c", source, str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, env=environment) for n in range(4)]
    assert [process.communicate(timeout=120)[0] for process in started] == [b""] * 4
    assert len(ImageCache(file).known(f"/{mine}/{n}" for mine in range(4) for n in range(40))) == 160


@pytest.mark.parametrize("damage", ["no database", "a folder", "no permission"])
def test_a_file_that_cannot_be_used_is_told_once_and_nothing_else_happens(file, damage):
    file.parent.mkdir()
    if damage == "no database":
        file.write_bytes(b"x" * 5000)
    elif damage == "a folder":
        file.mkdir()
    else:
        file = file.parent / "a file"
        file.write_text("")
        file = file / "images.sqlite3"
    reported: list[str] = []
    cache = ImageCache(file, say=reported.append)
    cache.keep({"/a": ImageFacts("1 1 1", (1, 1))})
    assert cache.known(["/a"]) == {} and len(reported) == 1
    assert reported[0].startswith(f"{file}: cannot be used (") and "images are looked at without it" in reported[0]


def test_a_file_of_another_version_is_made_anew(file):
    cache = ImageCache(file)
    cache.keep({"/a": ImageFacts("1 1 1", (1, 1))})
    cache.close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    again = ImageCache(file)
    assert again.known(["/a"]) == {}
    again.keep({"/a": ImageFacts("1 1 1", (2, 2))})
    assert again.known(["/a"])["/a"].size == (2, 2)


def test_what_was_not_used_for_long_is_dropped(file, monkeypatch):
    today = image_cache._day()
    cache = ImageCache(file)
    cache.keep({"/old": ImageFacts("1 1 1", (1, 1)), "/used": ImageFacts("1 1 1", (1, 1))})
    cache.close()
    monkeypatch.setattr(image_cache, "_day", lambda: today + 100)
    cache = ImageCache(file)
    assert cache.known(["/used"])
    cache.close()
    monkeypatch.setattr(image_cache, "_day", lambda: today + 200)
    assert ImageCache(file).known(["/old", "/used"]).keys() == {"/used"}


def test_the_users_folder_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ImageCache.of_user().keep({"/a": ImageFacts("1 1 1", (1, 1))})
    assert (tmp_path / "vlm_jax" / "images.sqlite3").is_file()


def test_a_stamp_tells_every_change_of_a_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    first, modified = stamp(path)
    assert stamp(str(path)) == (first, modified)
    time.sleep(0.02)
    path.write_bytes(b"two")
    assert stamp(path)[0] != first
    os.utime(path, (modified, modified))  # as copying that keeps times leaves it
    assert stamp(path)[0] != first


def test_a_file_that_was_written_a_moment_ago_is_not_kept():
    assert not settled(time.time()) and not settled(time.time() + 5) and settled(time.time() - 10)


def test_keys_tell_bytes_apart_and_know_names_that_no_table_can_hold():
    assert key_of(b"a") == key_of(b"a") != key_of(b"b") and key_of(b"a").startswith("embedded:")
    assert key_of("/a/ภาพ.png") == "/a/ภาพ.png" and key_of("/a/\udcff.png") is None

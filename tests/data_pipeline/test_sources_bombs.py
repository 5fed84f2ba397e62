"""Small files that say much: what would fill the memory or never end is refused in a line, and soon."""

import time

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from data_pipeline import sources
from data_pipeline.sources import parquet_files
from tests.data_pipeline.source_files import errors_of, png, write_parquet
from vlm_jax.errors import InputError


def bomb(path, *, rows, letters, group=None):
    """Equal texts: a dictionary of one, and runs of its number."""
    text = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(rows, np.int32)), pyarrow.array(["a" * letters]))
    words = text.cast(pyarrow.string())
    columns = {"image": pyarrow.nulls(rows, pyarrow.string()), "question": words, "answer": words}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=group or rows, compression="zstd")
    return path


@pytest.mark.parametrize(("rows", "letters"), [(2_000, 200_000), (5_000, 60_000), (40, 20_000_000)])
def test_a_row_group_that_swells_is_refused_before_it_does(tmp_path, monkeypatch, rows, letters):
    monkeypatch.setattr(parquet_files, "_ALLOWED", 1 << 28)
    path = bomb(tmp_path / "a.parquet", rows=rows, letters=letters)
    assert path.stat().st_size < 50_000
    before, began = pyarrow.default_memory_pool(), time.monotonic()
    pool = pyarrow.proxy_memory_pool(before)
    pyarrow.set_memory_pool(pool)
    try:
        errors = errors_of(path)
    finally:
        pyarrow.set_memory_pool(before)
    assert time.monotonic() - began < 60
    assert 0 < pool.max_memory() < 2 * parquet_files._ALLOWED
    assert len(errors) == rows and all("MB in memory; if that is meant, write the file again" in one for one in errors)
    assert "row 1: cannot be read (its group of" in errors[0] and "bytes in the file" in errors[0]


def test_rows_beyond_counting_are_refused_when_the_file_is_opened(tmp_path):
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"question": pyarrow.nulls(100_000_000, pyarrow.string())}), path)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="100,000,000 rows of .* bytes: equal rows over and over are no data set"):
        sources.open_source(path)


def test_equal_images_in_many_rows_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_ALLOWED", 1 << 16)  # as if each were of many megabytes
    pixels = png() + np.random.default_rng(0).bytes(10_000)
    rows = [{"image": {"bytes": pixels, "path": None}, "question": f"Who {n}?", "answer": "I"} for n in range(20)]
    records, errors = sources.read(write_parquet(tmp_path / "a.parquet", rows, group=20))
    assert len(records) == 20 and not errors
    swollen = write_parquet(tmp_path / "b.parquet", rows * 10, group=200)
    assert len(errors_of(swollen)) == 200


def test_categories_count_once(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "_ALLOWED", 1 << 16)
    words = pyarrow.array([f"{n} " + "word " * 400 for n in range(20)])
    many = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.arange(2_000, dtype=np.int32) % 20), words)
    blank = pyarrow.nulls(2_000, pyarrow.string())
    table = pyarrow.table({"image": blank, "question": many, "answer": pyarrow.array([str(n) for n in range(2_000)])})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    records, errors = sources.read(tmp_path / "a.parquet")
    assert len(records) == 2_000 and not errors


@pytest.mark.parametrize("nested", ["lists", "structs"])
def test_categories_in_lists_and_structs_count_once(tmp_path, monkeypatch, nested):
    monkeypatch.setattr(parquet_files, "_ALLOWED", 1 << 25)
    words = pyarrow.array([f"{n}" * 300 for n in range(2_000)] * 2).dictionary_encode()
    if nested == "lists":
        column = pyarrow.ListArray.from_arrays(pyarrow.array(range(4_001), pyarrow.int32()), words)
    else:
        column = pyarrow.StructArray.from_arrays([words, pyarrow.array(range(4_000))], ["c", "n"])
    blank = pyarrow.nulls(4_000, pyarrow.string())
    asked = pyarrow.array([f"Q{n}?" for n in range(4_000)])
    pyarrow.parquet.write_table(pyarrow.table({"image": blank, "question": asked, "answer": asked, "more": column}),
                                tmp_path / "a.parquet")  # fmt: skip
    source = sources.open_source(tmp_path / "a.parquet")
    assert [source[n].messages[0]["content"] for n in (0, 3_999)] == ["Q0?", "Q3999?"]


def test_times_that_python_has_no_type_for_hinder_no_other_column(tmp_path):
    times = pyarrow.array([1, 1_001], pyarrow.timestamp("ns"))
    asked = pyarrow.array(["Who?", "What?"])
    blank = pyarrow.nulls(2, pyarrow.string())
    table = pyarrow.table({"image": blank, "question": asked, "answer": asked, "created": times})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    records, errors = sources.read(tmp_path / "a.parquet")
    assert len(records) == 2 and not errors

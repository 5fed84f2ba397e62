"""Ids that repeat, answers that are numbers, and cells longer than usual, as other programs' files have them."""

import csv

import pytest

from data_pipeline import sources
from tests.data_pipeline.source_files import error_of, write_lines
from tests.data_pipeline.test_other_trainers import FORMS, ROWS, opened


def test_repeated_ids_of_other_formats_are_made_unique_in_order_and_counted(processor, tmp_path):
    entries = [{**FORMS["llava"], "id": name} for name in ("a", "a", "a (2)", "b", "a")]
    path = write_lines(tmp_path / "a.jsonl", entries)
    notes: list[str] = []
    records, errors = sources.read(path, notes=notes)
    assert [record.id for record in records] == ["a", "a (2)", "a (2) (2)", "b", "a (3)"] and errors == []
    assert notes == [f"{path}: 3 records have ids that an earlier record has; they are told apart by their order"]
    sources.write(tmp_path / "b.jsonl", records, format="records")
    again: list[str] = []
    assert len(sources.read(tmp_path / "b.jsonl", notes=again)[0]) == 5 and again == []
    _, errors, ledger = opened(processor, path)
    # The third "a (2)" is no repetition until the ids of a reading in order are given.
    assert errors == [] and ledger.summary() == "2 repaired (repeated id)"
    assert ledger.reasons() == [
        f"{path}: 2 records have ids that an earlier record has; they are told apart by their order"
    ]
    _, errors, ledger = opened(processor, path, share=0.8)  # four of the five, found through a chain of files
    assert errors == [] and "repaired (repeated id)" in ledger.summary()


@pytest.mark.parametrize("format", ["openai", "sharegpt", "query_response", "alpaca", "prompt_completion", "table"])
def test_no_other_format_insists_on_ids(tmp_path, format):
    entry = {**{**FORMS, **ROWS}[format], "id": 7}
    records, errors = sources.read(write_lines(tmp_path / "a.jsonl", [entry] * 3), format=format)
    assert [record.id for record in records] == ["7", "7 (2)", "7 (3)"] and errors == []


def test_own_records_insist_on_ids(processor, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [FORMS["records"]] * 2)
    assert "the id 'a' is already that of line 1; give each record its own, or name the format" in error_of(path)
    _, (error,), _ = opened(processor, path)
    assert "the id 'a' is an earlier record's; give each its own" in error
    _, errors, ledger = opened(processor, path, format="openai")
    assert errors == [] and ledger.summary() == "1 repaired (repeated id)"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("3", "3"),
        ("3.10", "3.10"),
        ("-0.50", "-0.50"),
        ("1e5", "1e5"),
        ("12345678901234567890", "12345678901234567890"),
    ],
)
def test_answers_that_are_numbers_are_the_text_they_were_written_as(tmp_path, written, text):
    entries = [
        '{"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": NUMBER}]}',
        '{"conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": NUMBER}]}',
        '{"image": "", "question": "How many?", "answer": NUMBER}',
        '{"image": "", "question": "How many?", "answers": [NUMBER, NUMBER]}',
        '{"query": "How many?", "response": NUMBER}',
        '{"instruction": "How many?", "output": NUMBER}',
        '{"imgname": "a.png", "query": "How many?", "label": NUMBER}',
        '{"image": "a.png", "question": "How many?", "answers": [{"answer": NUMBER}], "answerable": 1}',
    ]
    for number, entry in enumerate(entries):
        for suffix, around in ((".jsonl", "{}"), (".json", "[{}]")):
            path = tmp_path / f"{number}{suffix}"
            path.write_text(around.replace("{}", entry.replace("NUMBER", written)))
            ((record,), errors) = sources.read(path)
            assert errors == [] and record.messages[-1]["content"] == text
            assert record.answers in (None, [text], [text, text])


@pytest.mark.parametrize("written", ["true", "NaN", "Infinity", "[3]", "null"])
def test_an_answer_that_is_no_number_and_no_text_is_refused(tmp_path, written):
    entry = '{"image": "", "question": "How many?", "answer": ANSWER}'
    (tmp_path / "a.jsonl").write_text(entry.replace("ANSWER", written))
    assert "the answer is" in error_of(tmp_path / "a.jsonl")


def test_cells_longer_than_the_csv_module_reads_by_itself_are_read(tmp_path):
    rows = [["image", "question", "answer"], ["", "Who?", "x" * 140_000], ["", "Why?", "y" * 200_000]]
    limit = csv.field_size_limit(131_072)
    try:
        with open(tmp_path / "a.csv", "w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows(rows)
        source = sources.open_source(tmp_path / "a.csv")
        csv.field_size_limit(131_072)  # as in a worker process, which has not opened the file
        assert [len(source[index].messages[1]["content"]) for index in range(2)] == [140_000, 200_000]
    finally:
        csv.field_size_limit(limit)

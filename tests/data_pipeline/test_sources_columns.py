"""Other people's column names, delimiters and data without questions, read as settings say or refused by name."""

import json

import pytest

from data_pipeline import sources
from data_pipeline.records import images_of
from tests.data_pipeline.source_files import (
    error_of,
    errors_of,
    messages,
    png,
    write_arrayrecord,
    write_lines,
    write_parquet,
)
from vlm_jax.training.config import default_config
from vlm_jax.training.resume_settings import resume_settings

THEIRS = {"image": "img_path", "question": "q", "answer": "a"}
ROW = {"img_path": "a.jpg", "q": "Who?", "a": "I."}


def write_row(folder, kind):
    if kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        (folder / f"t.{kind}").write_text("\n".join([separator.join(ROW), separator.join(ROW.values())]) + "\n")
        return folder / f"t.{kind}"
    if kind == "jsonl":
        return write_lines(folder / "t.jsonl", [ROW])
    if kind == "json":
        (folder / "t.json").write_text(json.dumps([ROW]))
        return folder / "t.json"
    return {"parquet": write_parquet, "array_record": write_arrayrecord}[kind](folder / f"t.{kind}", [ROW])


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "parquet", "array_record"])
def test_columns_are_read_under_the_names_they_have(tmp_path, kind):
    path = write_row(tmp_path, kind)
    ((record,), errors) = sources.read(path, columns=THEIRS)
    assert errors == [] and record.messages == messages(image=str(tmp_path / "a.jpg"), answer="I.")
    assert errors_of(path)  # without the mapping it is refused


def test_conversations_under_another_name_are_read(tmp_path):
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "I"}]
    path = write_lines(tmp_path / "a.jsonl", [{"dialog": turns, "photo": "a.png"}])
    ((record,), _) = sources.read(path, columns={"conversations": "dialog", "image": "photo"})
    assert images_of(record) == [str(tmp_path / "a.png")]
    swapped = write_lines(tmp_path / "b.jsonl", [{"image": "", "question": "I.", "answer": "Who?"}])
    ((record,), _) = sources.read(swapped, columns={"question": "answer", "answer": "question"})
    assert record.messages == messages(answer="I.")


@pytest.mark.parametrize(
    "columns, words",
    [
        ({**THEIRS, "image": "img_pth"}, "no entry has 'img_pth', which is named for 'image'; the columns"),
        ({"imag": "img_path"}, "nothing called 'imag' is read; is 'image' meant?"),
        ({"image": ""}, "image is ''; wanted the name of a column"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_the_nearest(tmp_path, columns, words):
    assert words in error_of(write_row(tmp_path, "csv"), columns=columns)


def test_names_of_a_csv_file_are_mapped_whatever_their_case(tmp_path):
    (tmp_path / "t.csv").write_text("Img,Q,A\na.jpg,Who?,I.\n")
    columns = {"image": "Img", "question": "Q", "answer": "a"}
    assert len(sources.read(tmp_path / "t.csv", columns=columns)[0]) == 1


@pytest.mark.parametrize(
    "name, text",
    [
        ("t.csv", 'image;question;answer\na.jpg;"Who; or, what?";"I, me\n""too"""\n'),
        ("t.tsv", 'image\tquestion\tanswer\na.jpg\tWho; or, what?\t"I, me\n""too"""\n'),
        ("t.csv", 'image\tquestion\tanswer\na.jpg\tWho; or, what?\t"I, me\n""too"""\n'),
        ("t.tsv", 'image,question,answer\na.jpg,"Who; or, what?","I, me\n""too"""\n'),
        ("t.csv", '"image";"question";"answer";"a, b, c and d, e"\na.jpg;Who; or, what?;"I, me\n""too""";\n'.replace(
            "Who; or, what?", '"Who; or, what?"')),
    ],
)  # fmt: skip
def test_what_separates_cells_is_told_by_the_header(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    ((record,), errors) = sources.read(tmp_path / name)
    assert errors == []
    assert record.messages == messages("Who; or, what?", 'I, me\n"too"', image=str(tmp_path / "a.jpg"))


def test_a_header_that_can_be_taken_apart_in_two_ways_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("image,question;answer\na,b;c\n")
    assert "cannot tell what separates its cells, commas or semicolons" in error_of(tmp_path / "t.csv")
    (tmp_path / "s.csv").write_text("image;question;answer\na.jpg;Who;me?;I\n")
    assert error_of(tmp_path / "s.csv").endswith("put cells with semicolons in quotes")


@pytest.mark.parametrize("named", ["sep=;", '"sep=;"', "SEP=;"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_first_line_names_what_separates_the_cells_as_in_excel(tmp_path, named, end, mark):
    lines = [named, "image;question;answer", 'a.jpg;"Who, or\nwhat?";I', "é.jpg;Why?;So;", "b.jpg;Where?;Here", ""]
    (tmp_path / "t.csv").write_bytes(mark + end.join(lines).encode())
    records, errors = sources.read(tmp_path / "t.csv")
    assert [record.messages[1]["content"] for record in records] == ["I", "Here"]
    assert errors == [
        f"{tmp_path / 't.csv'}, line 5: has 4 cells where the header has 3; put cells with semicolons in quotes"
    ]


@pytest.mark.parametrize("delimiter", [",", "|", "\t", ":"])
def test_it_may_name_any_sign(tmp_path, delimiter):
    rows = [f"sep={delimiter}", delimiter.join(["image", "question", "answer"]), delimiter.join(["a.jpg", "Who?", "I"])]
    (tmp_path / "t.csv").write_text("\n".join(rows) + "\n")
    assert sources.open_source(tmp_path / "t.csv")[0].messages == messages(image=str(tmp_path / "a.jpg"), answer="I")


@pytest.mark.parametrize(
    "header, row, words",
    [
        (
            "image,question,answer",
            "a.jpg;Who?;I",
            "its header has commas between the names and its rows have semicolons",
        ),
        (
            "image;question;answer",
            "a.jpg,Who?,I",
            "its header has semicolons between the names and its rows have commas",
        ),
        ("image,question,answer", "a.jpg\tWho?\tI", "its header has commas between the names and its rows have tabs"),
    ],
)
def test_a_header_separated_otherwise_than_its_rows_is_one_line(tmp_path, header, row, words):
    (tmp_path / "t.csv").write_text("\n".join([header, *[row] * 5]) + "\n")
    assert f"{tmp_path / 't.csv'}: {words} between the cells; write the header as the rows" == error_of(
        tmp_path / "t.csv"
    )


def test_a_question_is_asked_where_the_data_has_none(tmp_path):
    captions = write_lines(tmp_path / "c.jsonl", [{"image": "a.png", "caption": "A cat."}])
    ((record,), _) = sources.read(captions, columns={"answer": "caption"}, question="What is shown?")
    assert record.messages == messages("What is shown?", "A cat.", image=str(tmp_path / "a.png"))
    own = write_parquet(tmp_path / "o.parquet", [{"image": png(), "question": "Who?", "answer": "I"}])
    assert sources.open_source(own, question="What?")[0].messages[0]["content"][1]["text"] == "Who?"
    talk = write_lines(tmp_path / "m.jsonl", [{"messages": messages()}])
    assert sources.open_source(talk, question="What?")[0].messages == messages()


def test_a_run_goes_on_with_the_same_columns_only():
    config = default_config()
    config.data.columns = THEIRS
    assert resume_settings(config)["data.columns"] == THEIRS != resume_settings(default_config())["data.columns"]


@pytest.mark.parametrize("line", ["sep=a", "sep=", '"sep=x"', "Sep=;;"])
def test_a_first_line_that_names_no_sign_between_cells_is_refused(tmp_path, line):
    (tmp_path / "t.csv").write_text(f"{line}\nimage;question;answer\na.jpg;Who?;I\n")
    if ";" in line:
        assert "no column" in error_of(tmp_path / "t.csv")
    else:
        assert f"its first line {line!r} names no sign between cells" in error_of(tmp_path / "t.csv")

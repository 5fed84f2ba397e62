"""Small data sets of every kind of file, for the tests of sources."""

import io
import json

import msgpack
import PIL.Image
import pyarrow
import pyarrow.parquet
from array_record.python.array_record_module import ArrayRecordWriter

from data_pipeline import sources
from vlm_jax.errors import InputError


def messages(question="Who?", answer="Eileen", image=None):
    content = question if image is None else [{"type": "image", "image": image}, {"type": "text", "text": question}]
    return [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]


def png(shade=0):
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 32), (shade, 0, 0)).save(file, "PNG")
    return file.getvalue()


def errors_of(path, **settings):
    """The errors of opening, or of the entries."""
    try:
        _, errors = sources.read(path, **settings)
    except InputError as error:
        errors = error.lines
    assert errors and all("\n" not in error for error in errors)
    return errors


def error_of(path, **settings):
    (error,) = errors_of(path, **settings)
    return error


def write_lines(path, entries):
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")
    return path


def write_arrayrecord(path, entries, pack=msgpack.packb):
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for entry in entries:
        writer.write(entry if isinstance(entry, bytes) else pack(entry))
    writer.close()
    return path


def write_parquet(path, rows, group=3):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)
    return path

"""The files that Weights & Biases keeps of a run on this machine, as far as one that goes on has to know them.

A file is a log in the form of LevelDB's: after a head of seven bytes, blocks of 32 KiB of pieces, each with a checksum,
its length, and whether it is whole (1) or the first (2), a middle (3) or the last (4) piece of a record. A record is a
message of wandb's own (`wandb_internal_pb2.Record`). wandb itself reads them in its Go program alone.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

HEAD, BLOCK = 7, 32768
_PIECE = struct.Struct("<IHB")


def records(path: Path) -> Iterator[Record]:
    """Those that are whole: a run that is killed leaves the end of the last unwritten."""
    content, at, parts = path.read_bytes(), HEAD, b""
    while at + _PIECE.size <= len(content):
        if (left := BLOCK - at % BLOCK) < _PIECE.size:  # no piece begins there
            at += left
            continue
        _, length, kind = _PIECE.unpack_from(content, at)
        at += _PIECE.size
        if not kind or at + length > len(content):
            return
        parts = (b"" if kind in (1, 2) else parts) + content[at : at + length]
        at += length
        if kind in (1, 4):
            yield Record.FromString(parts)


def steps(path: Path) -> list[int]:
    """The steps of the rows in a file."""
    return [record.history.step.num for record in records(path) if record.WhichOneof("record_type") == "history"]


def last_step(folder: Path, run_id: str) -> int:
    """The last step of a run in all files that were written while there was no server; 0 for none."""
    paths = sorted(folder.glob(f"offline-run-*-{run_id}*/run-{run_id}.wandb"))
    return max((step for path in paths for step in steps(path)), default=0)

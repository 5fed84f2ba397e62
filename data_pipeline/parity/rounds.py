"""What came of one round: pairs, their answers, and the students that were trained; and the part that is on disk."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.parity.identify import Agreement
from data_pipeline.parity.level import Trained
from data_pipeline.parity.pairs import Compared, Pair, read_compared, read_pairs
from vlm_jax.checkpoint.files import read_json, write_json

FILE = "agreement.json"
_COUNTS = ("images", "left_out", "unanswered", "teacher_model")


@dataclass
class Round:
    """Attributes:
    number: from 1; folder: of its files.
    images: that were written about; teacher_model: who wrote.
    written: the pairs that the teacher wrote in it; left_out: {why: how many it wrote besides}.
    student, teacher: what they said to all pairs of this and earlier rounds; unanswered: pairs that one of them could
      not be asked.
    sets: {arm: (examples, of them replayed)}; trained: {arm: the student}.
    """

    number: int
    folder: Path
    images: int = 0
    teacher_model: str = ""
    written: list[Pair] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    student: list[str] = field(default_factory=list)
    teacher: list[tuple[str, ...]] = field(default_factory=list)
    unanswered: int = 0
    compared: list[Compared] = field(default_factory=list)
    agreement: Agreement | None = None
    sets: dict[str, tuple[int, int]] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)

    def write(self) -> None:
        """The counts beside `annotated.jsonl` and `compared.jsonl`."""
        assert self.agreement is not None
        counts = {name: getattr(self, name) for name in _COUNTS}
        write_json(self.folder / FILE, {**counts, **dataclasses.asdict(self.agreement)})

    def read(self) -> None:
        """What `write` wrote, and the files beside it."""
        found = read_json(self.folder / FILE)
        for name in _COUNTS:
            setattr(self, name, found[name])
        self.agreement = Agreement(found["outcomes"], found["by_type"], found["kept_by"])
        self.written = read_pairs(self.folder / "annotated.jsonl")
        self.compared = read_compared(self.folder / "compared.jsonl")

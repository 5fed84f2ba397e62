"""What came of one round: pairs, their answers, and the students that were trained."""

from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.parity.identify import Agreement
from data_pipeline.parity.level import Trained
from data_pipeline.parity.pairs import Compared, Pair


@dataclass
class Round:
    """Attributes:
    number: from 1; folder: of its files.
    written: the pairs that the teacher wrote in it; left_out: {why: how many it wrote besides}.
    student, teacher: what they said to all pairs of this and earlier rounds; unanswered: pairs that one of them could
      not be asked.
    sets: {arm: (examples, of them replayed)}; trained: {arm: the student}.
    """

    number: int
    folder: Path
    written: list[Pair] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    student: list[str] = field(default_factory=list)
    teacher: list[tuple[str, ...]] = field(default_factory=list)
    unanswered: int = 0
    compared: list[Compared] = field(default_factory=list)
    agreement: Agreement | None = None
    sets: dict[str, tuple[int, int]] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)

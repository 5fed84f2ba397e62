"""Pairs and answers to and from MPA's own files, so that its published outputs can be gone on from, and ours by it."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.parity import mpa_files
from data_pipeline.parity.mpa_files import Annotated, Answered, TrainingEntry
from data_pipeline.parity.pairs import Compared, Pair, read_pairs
from data_pipeline.parity.unlabelled import Image
from data_pipeline.sources.mpa import MovedImages
from vlm_jax import locations
from vlm_jax.errors import InputError


def pairs_of_file(path: Path, image_root: str) -> list[Pair]:
    """The pairs of MPA's PA file, or of an `annotated.jsonl`, with the images as they are now.

    Args:
      image_root: where the images are found again, as `mpa_files.read_annotated` has it.

    Raises:
      InputError: the file is neither, or the image root is no folder.
    """
    if path.suffix == ".jsonl":
        return _as_they_are_now(read_pairs(path), image_root)
    entries = mpa_files.read_annotated(path, image_root)
    return [
        _pair(one.question_id, one.image_path, one.predicted_question, str(one.predicted_answer)) for one in entries
    ]


def _as_they_are_now(pairs: Sequence[Pair], image_root: str) -> list[Pair]:
    if image_root:
        if not locations.is_folder(root := locations.absolute(image_root)):
            raise InputError(f"config.images.image_root: {image_root} is not a folder")
        images = MovedImages(root)
        pairs = [dataclasses.replace(pair, file=locations.join(root, images.find(pair.file))) for pair in pairs]
    digests = {file: _digest(file) for file in {pair.file for pair in pairs}}
    return [dataclasses.replace(pair, digest=digests[pair.file] or pair.digest) for pair in pairs]


def pairs_of_answers(
    student: str, teacher: str, image_root: str
) -> tuple[list[Pair], list[str], list[tuple[str, ...]]]:
    """(pairs, what the student says, what the teacher says) of two PI files, joined by their ids.

    Raises:
      InputError: they are not about the same questions.
    """
    files = [mpa_files.read_answers(path, image_root) for path in (student, teacher)]
    joined = mpa_files.paired(files[0], files[1], names=(student, teacher))
    pairs = [_pair(one.question_id, one.image_path, one.PA_question, str(one.PA_answer)) for one, _ in joined]
    return pairs, [str(one.predictions) for one, _ in joined], [(str(other.predictions),) for _, other in joined]


def _pair(number: int | str, image: str, question: str, answer: str) -> Pair:
    digest = _digest(image)
    return Pair(
        str(number), (digest or hashlib.sha256(image.encode()).hexdigest())[:32], image, digest, question, answer
    )


def _digest(image: str) -> str:
    """Of an image's bytes; "" where it is not there: what needs no image can still be done."""
    path = Path(image)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def check_images(pairs: Sequence[Pair], doing: str) -> None:
    """Raises InputError where images of pairs are missing."""
    paths = list(dict.fromkeys(pair.file for pair in pairs))
    if missing := [path for path in paths if not Path(path).is_file()]:
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise InputError(
            f"{doing}: {len(missing):,} of {len(paths):,} images are not there ({', '.join(missing[:3])}{more}); set "
            "config.images.image_root to the folder that they lie in now, then run the same command"
        )


def write_mpa(folder: Path, compared: Sequence[Compared], images: Mapping[str, Image]) -> None:
    """`PA.json`, `PI_teacher.json`, `PI_student.json` and `train.json`, as MPA's programs read them.

    Args:
      images: by id, for what the data itself asked about each.
    """
    folder.mkdir(exist_ok=True)
    annotated, teachers, students = [], [], []
    for one in compared:
        pair, number = one.pair, _number(one.pair.id)
        image = images.get(pair.image)
        truth = (None, None) if image is None or image.truth is None else image.truth
        annotated.append(Annotated(number, pair.file, pair.question, pair.answer, *truth))
        teachers.append(Answered(number, pair.file, pair.question, pair.answer, one.teacher[0]))
        students.append(Answered(number, pair.file, pair.question, pair.answer, one.student))
    mpa_files.write_annotated(folder / "PA.json", annotated)
    mpa_files.write_answers(folder / "PI_teacher.json", teachers)
    mpa_files.write_answers(folder / "PI_student.json", students)
    kept = [TrainingEntry.of(answer) for answer, one in zip(students, compared, strict=True) if one.kept]
    mpa_files.write_training(folder / "train.json", kept)


def _number(identity: str) -> int | str:
    return int(identity) if identity.isascii() and identity.isdigit() and str(int(identity)) == identity else identity

"""A corpus in the forms that other programs read, beside its records: `config.card.formats` names them."""

import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.records import Record, images_of
from data_pipeline.sources import writing
from vlm_jax import locations

FORMATS = ("arrayrecord", "imagefolder", "llava", "tfds")
"""ArrayRecord, Hugging Face's ImageFolder, LLaVA's JSON, and TensorFlow Datasets in ArrayRecord."""
FOLDER = "exports"


def write(folder: Path, splits: Mapping[str, Sequence[Record]], formats: Sequence[str]) -> None:
    """Writes the splits in each of the formats; what an earlier run wrote is replaced.

    LLaVA's files name images by their paths, so they lie in the corpus's folder itself; the others hold the images.

    Raises:
      InputError: a record that a format cannot hold.
    """
    target = folder / FOLDER
    shutil.rmtree(target, ignore_errors=True)
    for old in folder.glob("*.llava.json"):
        old.unlink()
    for name in formats:
        if name == "tfds":
            _write_tfds(target / "tfds", splits)
            continue
        for split, records in splits.items():
            path = {
                "arrayrecord": target / "arrayrecord" / f"{split}.array_record",
                "imagefolder": target / "imagefolder" / split,
                "llava": folder / f"{split}.llava.json",
            }[name]
            writing.write(path, records, format=name)


def _write_tfds(target: Path, splits: Mapping[str, Sequence[Record]]) -> None:
    import tensorflow_datasets as tfds

    texts = ("question", "answer", "task", "fact_id", "context", "reasoning")

    class Corpus(tfds.core.GeneratorBasedBuilder):  # its name is the data set's
        """Questions about images, made by vlm-jax."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {"id": tfds.features.Text(), "image": tfds.features.Image()}
            features |= {name: tfds.features.Text() for name in texts}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, manager: Any) -> dict[str, Iterator]:
            return {split: self._generate_examples(records) for split, records in splits.items()}

        def _generate_examples(self, records: Sequence[Record]) -> Iterator[tuple[str, dict[str, Any]]]:
            for record in records:
                (image,) = images_of(record)
                question = record.messages[0]["content"][1]["text"]
                values = {"question": question, "answer": record.messages[1]["content"]}
                values |= {name: getattr(record, name) or "" for name in texts[2:]}
                yield record.id, {"id": record.id, "image": io.BytesIO(locations.read_bytes(str(image))), **values}

    # As in a script: for a class of a package TFDS asks for importlib_resources.
    Corpus.__module__ = "__main__"
    tfds.disable_progress_bar()
    Corpus(data_dir=str(target), file_format="array_record").download_and_prepare()
    shutil.rmtree(target / "downloads", ignore_errors=True)  # which nothing was put into

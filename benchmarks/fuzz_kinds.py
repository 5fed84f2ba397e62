"""The kinds of files that `fuzz` breaks: a small sound one of each, and how it is read."""

import dataclasses
import json
import multiprocessing
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import PIL.Image

from data_pipeline import sources
from data_pipeline.check import check_images
from data_pipeline.records import Record, images_of
from data_pipeline.sources import writing
from vlm_jax.checkpoint import (
    chat_template,
    description,
    export,
    hf_folder,
    peft_folder,
    peft_settings,
    pth,
    stop_tokens,
)
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.models.hf_config import to_hf
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.presets import PRESETS
from vlm_jax.processing import chat
from vlm_jax.processing.image_processors.file import read as read_image_processor
from vlm_jax.processing.images import FORMATS, open_image

BASE = Path(__file__).resolve().parents[1] / "vlm_jax" / "assets" / "tiny_base"


def image(kind: str) -> bytes:
    folder = Path(tempfile.mkdtemp())
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(folder / "a", kind)
    content = (folder / "a").read_bytes()
    shutil.rmtree(folder)
    return content


def records() -> list[Record]:
    def turns(number: int) -> list[dict]:
        part = {"type": "image", "image": image("PNG")}
        asked = [part, {"type": "text", "text": f"What is {number}?"}]
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": "A thing."}]

    return [Record(str(number), turns(number)) for number in range(3)]


def read_data(path: Path) -> None:
    read, errors = sources.read(path)
    embedded = [image for record in read for image in images_of(record) if isinstance(image, bytes)]
    refuse([*errors, *check_images(read)[1]] if embedded else errors)


def refuse(errors: list[str]) -> None:
    if errors:
        raise InputError(errors)


def weights(path: Path) -> dict[str, bytes]:
    source = open_model(str(path))
    source.check()
    return {name: np.asarray(array).tobytes() for name, array in source.read().items()}


class Kind:
    """A sound file or folder, which of its files are mutated, and how it is read."""

    def __init__(self, name: str, made: Path, files: list[str], read: Callable[[Path], object], *, equal: bool = False):
        self.name, self.made, self.files, self.read, self.equal = name, made, files, read, equal


def kinds(folder: Path) -> dict[str, Kind]:
    """Every kind, made below a folder where it is not there yet."""
    made = folder / "made"
    if not made.is_dir():
        maker = multiprocessing.get_context("fork").Process(target=make, args=(made,))
        maker.start()  # what JAX starts is not forked later
        maker.join()
    found = [
        Kind(path.suffix[1:] or path.name, path, _files(path), read_data) for path in sorted((made / "data").iterdir())
    ]
    found += [Kind(path.name, path, [""], open_image) for path in sorted((made / "images").iterdir())]
    model, adapter, run = made / "model", made / "adapter", made / "run"
    found += [
        Kind("config.json", model, ["config.json"], description.read_config),
        Kind("preprocessor_config.json", model, ["preprocessor_config.json"], read_image_processor),
        Kind("tokenizer.json", model, ["tokenizer.json"], read_text),
        Kind("tokenizer_config.json", model, ["tokenizer_config.json"], read_text),
        Kind("generation_config.json", model, ["generation_config.json"], read_ends),
        Kind("chat_template.jinja", model, ["chat_template.jinja"], read_template),
        Kind("adapter_config.json", adapter, ["adapter_config.json"], peft_settings.read_settings),
        Kind("adapter_model.safetensors", adapter, ["adapter_model.safetensors"], read_adapter),
        Kind("model.safetensors", model, ["model.safetensors"], read_weights),
        Kind("model.safetensors.index.json", made / "sharded", ["model.safetensors.index.json"], read_weights),
        Kind("pth", made / "model.pth", [""], lambda path: [array.sum() for array in pth.read(path).values()]),
    ]
    content = [name for name in _files(run) if name.startswith("checkpoints/")]
    found.append(Kind("checkpoint", run, content, weights, equal=True))
    return {kind.name: kind for kind in found}


def _files(path: Path) -> list[str]:
    return sorted(each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()) or [""]


_STATE: dict[str, object] = {}
"""What is read once a process: of a folder of which another file is broken."""


def read_text(folder: Path) -> object:
    tokenizer = description.read_tokenizer(folder)
    return tokenizer("a few words", add_special_tokens=False)["input_ids"]


def read_ends(folder: Path) -> object:
    if "processor" not in _STATE:
        _STATE["processor"] = description.read_processor(folder, description.read_config(folder))
    return stop_tokens.stop_tokens(folder, _STATE["processor"])


def read_template(folder: Path) -> str:
    if "tokenizer" not in _STATE:
        _STATE["tokenizer"] = description.read_tokenizer(folder)
    text = chat_template.read(folder, _STATE["tokenizer"])
    part = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]
    turns = [{"role": "user", "content": part}, {"role": "assistant", "content": "That."}]
    return chat.render(_STATE["tokenizer"], text, turns)


def read_weights(folder: Path) -> object:
    config = description.read_config(folder)
    hf_folder.check_weights(folder, config)
    return [array[...].sum() for array in hf_folder.deferred(folder, config).values()]


def read_adapter(path: Path) -> object:
    return peft_folder.read(path, description.read_config(path.parent / "model"))


def make(folder: Path) -> None:
    make_data(folder / "data")
    (folder / "images").mkdir()
    for kind in FORMATS:
        (folder / "images" / kind.lower()).write_bytes(image(kind))
    make_model(folder / "model")
    make_model(folder / "sharded", shard_bytes=20_000)
    make_adapter(folder / "adapter", json.loads((folder / "model" / "config.json").read_text())["hidden_size"])
    export.export(folder / "model", folder / "model.pth", format="pth")
    export.export(folder / "model", folder / "run", format="orbax")


def make_data(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, form in (("a.jsonl", "openai"), ("a.parquet", "parquet"), ("a.array_record", "arrayrecord")):
        writing.write(folder / name, records(), format=form, embed=True)
    rows = [{"id": str(n), "conversations": [{"from": "human", "value": "<image>Q"}, {"from": "gpt", "value": "A"}],
             "image": f"{n}.png"} for n in range(3)]  # fmt: skip
    (folder / "llava.json").write_text(json.dumps(rows))
    (folder / "table.csv").write_text('id,image,question,answer\n1,a.png,What?,That\n2,,Who?,"I, or you"\n')
    (folder / "table.tsv").write_text("id\timage\tquestion\tanswer\n1\ta.png\tWhat?\tThat\n2\t\tWho?\tI\n")
    samples = folder / "samples"
    samples.mkdir()
    with tarfile.open(folder / "samples.tar", "w") as tar:
        for number, row in enumerate(rows):
            (samples / f"{number}.png").write_bytes(image("PNG"))
            (samples / f"{number}.json").write_text(json.dumps({"conversations": row["conversations"]}))
            for suffix in ("png", "json"):
                tar.add(samples / f"{number}.{suffix}", f"{number}.{suffix}")
    shutil.rmtree(samples)
    make_saved_to_disk(folder / "saved_to_disk")
    make_tfds(folder)


def make_saved_to_disk(folder: Path) -> None:
    """As `Dataset.save_to_disk` of Hugging Face's datasets writes it."""
    import pyarrow

    folder.mkdir()
    rows = [{"image": {"bytes": image("PNG"), "path": None}, "question": f"Who {n}?", "answer": "I"} for n in range(3)]
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file:
        with pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def make_tfds(folder: Path) -> None:
    import io

    import tensorflow_datasets as tfds

    class Small(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(encoding_format="png"), "question": tfds.features.Text(),
                        "answer": tfds.features.Text()}  # fmt: skip
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for n in range(3):
                yield n, {"image": io.BytesIO(image("PNG")), "question": f"Q{n}?", "answer": "A"}

    Small.__module__ = "__main__"  # for a class of a package TFDS asks for importlib_resources
    with tempfile.TemporaryDirectory() as place:
        builder = Small(data_dir=place, file_format="array_record")
        tfds.disable_progress_bar()
        builder.download_and_prepare()
        shutil.copytree(builder.data_dir, folder / "tfds")


def make_model(folder: Path, **layout) -> None:
    """A model of two narrow layers, so that thousands of copies are soon written."""
    shutil.copytree(BASE, folder)
    (folder / "model.safetensors").unlink()
    shape = PRESETS["tiny"]
    read = description.read_config(folder)
    config = dataclasses.replace(
        read,
        vision=dataclasses.replace(shape.vision, depth=1, hidden=16, heads=2, mlp=24, out_hidden=16, global_blocks=()),
        decoder=dataclasses.replace(
            shape.decoder, layers=1, hidden=16, heads=2, kv_heads=1, mlp=24, vocab=read.decoder.vocab,
            mrope_sections=(1, 1, 2),
        ),
    )  # fmt: skip
    content = json.loads((folder / "config.json").read_text())
    ids = {key: content[key] for key in ("bos_token_id", "eos_token_id") if key in content}
    (folder / "config.json").write_text(json.dumps(to_hf(config, "bfloat16") | ids))
    rng = np.random.default_rng(0)
    parameters = {
        path: rng.normal(0, 0.1, leaf.shape).astype(ml_dtypes.bfloat16)
        for path, leaf in abstract_parameters(config).items()
    }
    with tempfile.TemporaryDirectory() as place:
        hf_folder.write_folder(Path(place) / "model", config, parameters, folder, **layout)
        shutil.copytree(Path(place) / "model", folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(description.read_tokenizer(BASE).chat_template)


def make_adapter(folder: Path, width: int) -> None:
    from safetensors.numpy import save_file

    folder.mkdir()
    name = "model.language_model.layers.0.self_attn.q_proj"
    parts = {"lora_A": np.ones((2, width), np.float32), "lora_B": np.ones((width, 2), np.float32)}
    tensors = {f"base_model.model.{name}.{part}.weight": array for part, array in parts.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [name]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))

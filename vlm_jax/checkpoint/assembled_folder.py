"""The folder of an assembled model, which points at the folders of its encoder and its decoder.

    config.json, tokenizer, chat template, image processor   as LLaVA's folders have them
    connector.safetensors                                    what neither part brings
    parts.json                                               where the encoder and the decoder lie

It is read like any folder of weights (`hf_folder`), and no byte of the parts is copied. What is trained from it is a
model of its own, in a run folder or exported. `assembly` writes such folders.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from vlm_jax.checkpoint.files import read_json
from vlm_jax.checkpoint.names import hub_name
from vlm_jax.checkpoint.source import resolve
from vlm_jax.errors import InputError
from vlm_jax.models.llava.names import in_encoder

PARTS, CONNECTOR = "parts.json", "connector.safetensors"


def places(folder: Path) -> Iterator[tuple[Path, Callable[[str], str | None]]]:
    """Where the weights of a folder lie, with what maps the names there onto the table's (None: left out)."""
    if not (folder / PARTS).is_file():
        yield folder, hub_name
        return
    content = read_json(folder / PARTS)
    for part, name_of in (("encoder", in_encoder), ("decoder", hub_name)):
        named = content.get(part)
        if not isinstance(named, str) or not named:
            raise InputError(f"{folder / PARTS}: {part} is {named!r}; wanted the folder or hub id of the {part}")
        try:
            yield resolve(named), name_of
        except InputError as error:
            raise InputError([f"{folder / PARTS}: the {part} cannot be had: {line}" for line in error.lines]) from None
    yield folder / CONNECTOR, hub_name

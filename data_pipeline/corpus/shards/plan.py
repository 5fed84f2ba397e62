"""What is to be done in a folder of shards: inputs, settings, and how many shards there are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_pipeline.corpus.filters.registry import FILTERS, select
from data_pipeline.corpus.shards.files import write_whole
from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError

FILE = "plan.json"
DUPLICATES = "near_duplicate"
"""The one filter that looks at all pairs."""


@dataclass(frozen=True)
class Plan:
    """Attributes:
    inputs: files of pairs as JSON lines (`filters.pair`), and `sizes` in bytes.
    of: shards of every stage.
    filters: {name: options} of the filters that are on, in their order.
    """

    inputs: list[str]
    sizes: list[int]
    of: int
    filters: dict[str, dict[str, Any]]


def prepare(folder: Path, inputs: Sequence[str | Path], of: int, settings: Mapping[str, Any]) -> Plan:
    """Writes down what is to be done; what is there already must be the same.

    Args:
      settings: as `filters.select` takes them; only filters of words.

    Raises:
      InputError: settings; inputs that cannot be read; a folder with another plan.
    """
    errors = []
    chosen = select(settings)
    errors += [
        f"filters.{name} needs more than words ({FILTERS[name].evidence or FILTERS[name].brings}), which shards do not "
        "have; apply it to what they keep"
        for name in chosen
        if not FILTERS[name].text
    ]
    if not isinstance(of, int) or isinstance(of, bool) or of < 1:
        errors.append(f"shards: {of!r} of them; wanted 1 or more")
    paths = [Path(path).absolute() for path in inputs]
    if not paths:
        errors.append("shards: no input files")
    sizes = []
    for path in paths:
        try:
            sizes.append(path.stat().st_size)
        except OSError as error:
            errors.append(f"{path}: cannot be read ({error.strerror})")
    if errors:
        raise InputError(errors)
    filters = json.loads(json.dumps(chosen))  # as it is read again
    plan = Plan([str(path) for path in paths], sizes, of, filters)
    if (folder / FILE).exists():
        if load(folder) != plan:
            raise InputError(f"{folder}: holds shards of other inputs or settings; remove it or name another folder")
        return plan
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(folder / FILE) as file:
        file.write(json.dumps(asdict(plan), ensure_ascii=False, indent=1).encode())
    return plan


def load(folder: Path) -> Plan:
    """The plan of a folder.

    Raises:
      InputError: there is none.
    """
    if not (folder / FILE).exists():
        raise InputError(f"{folder}: holds no {FILE}; `prepare` writes it")
    return Plan(**read_json(folder / FILE))

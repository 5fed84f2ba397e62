"""Prompts that begin alike, with the same images: several questions about one image, of which it is read once."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vlm_jax.inference import prefixes
from vlm_jax.processing.example import Example


@dataclasses.dataclass(frozen=True)
class SharedPrefixes:
    """Prompts as what several have in common, and what each goes on with.

    Attributes:
      prefixes: each to be read once.
      owner: of each prompt the number of its prefix.
      suffixes: what is behind it, one token at least.
    """

    prefixes: list[Example]
    owner: list[int]
    suffixes: list[Example]


def shared_prefixes(prompts: Sequence[Example]) -> SharedPrefixes | None:
    """Which of these prompts begin with the same images and words; None where none do.

    A prompt that shares nothing has a prefix of its own. Nothing is shared where what is seen of an image depends on
    what is asked about it, or where tokens are left out within the decoder: those must be read as a whole.
    """
    groups: dict[object, list[int]] = {}
    for number, prompt in enumerate(prompts):
        if prompt.above is not None or (prompt.candidates is not None and prompt.candidates.questions is not None):
            return None
        key = prefixes.image_digests(prompt) if prompt.images else number
        groups.setdefault(key, []).append(number)
    if len(groups) == len(prompts):
        return None
    found = SharedPrefixes([], [0] * len(prompts), list(prompts))
    for members in groups.values():
        shared = _in_common([prompts[number] for number in members])
        parts = [members] if shared else [[number] for number in members]
        for part in parts:
            first = prompts[part[0]]
            end = shared or len(first.input_ids) - 1
            for number in part:
                found.owner[number] = len(found.prefixes)
                found.suffixes[number] = prompts[number].behind(end)
            found.prefixes.append(first.before(end))
    return found if len(found.prefixes) < len(prompts) else None


def _in_common(prompts: Sequence[Example]) -> int:
    """With how many equal tokens all of several prompts begin, an image or more among them; 0 where not with all
    images."""
    if len(prompts) == 1:
        return 0
    most = min(len(prompt.input_ids) for prompt in prompts) - 1
    first = prompts[0].input_ids[:most]
    differ = [np.flatnonzero(prompt.input_ids[:most] != first) for prompt in prompts[1:]]
    shared = min([most, *(int(places[0]) for places in differ if len(places))])
    spans = [prefixes.spans_of(prompt) for prompt in prompts]
    return shared if all(span[-1][1] <= shared for span in spans) else 0

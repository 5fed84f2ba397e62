"""Prompts that begin alike: several questions about one image, of which it is read once, or one long instruction."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vlm_jax.inference import prefixes
from vlm_jax.processing.example import Example

LONGEST_BEHIND = 64
"""Tokens that may follow on shared words alone: what follows sees all before it at one time, which takes memory."""


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

    A prompt that shares nothing has a prefix of its own. Where no image is shared, the words may be that all begin
    with, if they are a quarter of what is to be read. Nothing is shared where what is seen of an image depends on
    what is asked about it, or where tokens are left out within the decoder: those must be read as a whole.
    """
    groups: dict[object, list[int]] = {}
    for number, prompt in enumerate(prompts):
        if prompt.above is not None or (prompt.candidates is not None and prompt.candidates.questions is not None):
            return None
        key = prefixes.image_digests(prompt) if prompt.images else number
        groups.setdefault(key, []).append(number)
    if len(groups) == len(prompts):
        return _shared_words(prompts)
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


def _shared_words(prompts: Sequence[Example]) -> SharedPrefixes | None:
    """The words before any image that all begin with, where it is worth it to read them once."""
    lengths = [len(prompt.input_ids) for prompt in prompts]
    first = prompts[0].input_ids
    end = min(int((first == prompts[0].image_token).argmax()) or lengths[0], min(lengths) - 1)
    for prompt in prompts[1:]:
        differ = np.flatnonzero(prompt.input_ids[:end] != first[:end])
        end = int(differ[0]) if len(differ) else end
    if 4 * end * (len(prompts) - 1) < sum(lengths) or max(lengths) - end > LONGEST_BEHIND:
        return None
    suffixes = [prompt.behind(end) for prompt in prompts]
    words = dataclasses.replace(prompts[0].before(end), images=(), candidates=None)
    return SharedPrefixes([words], [0] * len(prompts), suffixes)


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

"""Single pieces of the invented objects: articles tell where one was made, by whom, for what and when it is used.

These facts are the piece's own, drawn for it, not the catalogue's. So neither the image nor what a model knows answers
a question about it: the article does, and of several pieces in one article the image says which is meant.
"""

from collections.abc import Sequence

import numpy as np

from data_pipeline.corpus.drawn.things import Thing

KINDS = ("origin", "maker", "use", "season")
"""Facts that a piece has of its own."""


def article(
    thing: Thing, things: Sequence[Thing], count: int, rng: np.random.Generator
) -> tuple[str, dict[str, tuple[str, str]]]:
    """An English article on so many pieces, one of them of `thing`, the others of other things; and its facts.

    Returns:
      The article, in which the pieces stand in a drawn order, and {one of KINDS: (English, Thai)} of the thing's.
    """
    others = [other for other in things if other is not thing]
    chosen = [thing, *(others[place] for place in rng.choice(len(others), count - 1, replace=False))]
    facts = [{kind: things[rng.integers(len(things))].facts[kind] for kind in KINDS} for _ in chosen]
    texts = [_text(one, own) for one, own in zip(chosen, facts, strict=True)]
    return " ".join(texts[place] for place in rng.permutation(count)), facts[0]


def _text(thing: Thing, facts: dict[str, tuple[str, str]]) -> str:
    own = {kind: english for kind, (english, _) in facts.items()}
    name = thing.facts["name"][0]
    return "This {name} was made in {origin} by {maker}, for {use}, and is used in {season}.".format(name=name, **own)

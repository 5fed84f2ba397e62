"""Questions of a report with their images: what was lost, learned, and is wrong still."""

import base64
import html
import io
import re
import typing
from collections.abc import Callable, Mapping, Sequence

from vlm_jax.errors import InputError
from vlm_jax.evaluation.report.summary import Baselines
from vlm_jax.evaluation.runner import Prediction
from vlm_jax.processing.images import Source, open_image

_NOT_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
SHOWN = 60
"""Questions shown with their images: a page of all would not open on a phone."""
THUMBNAIL = 240
_MOST = 4000
"""Characters of a text that a page shows: sixty answers that never end would not open on a phone either."""

Member = typing.TypeVar("Member")


def cards(predictions: Sequence[Prediction], images: Callable[[str], list[Source]], baselines: Baselines) -> str:
    """Some of each kind, in the order of the kinds; compared with the first baseline, if any.

    Args:
      images: gives the images of a question's id.
    """
    first = next(iter(baselines.values()), {})
    by_kind: dict[tuple[int, str], list[Prediction]] = {}
    for one in predictions:
        by_kind.setdefault(kind(one, first.get(one.id)), []).append(one)
    share = max(1, SHOWN // max(1, len(by_kind)))
    kinds = sorted(by_kind.items())
    drawn = "".join(
        card(one, name, images, {label: others.get(one.id) for label, others in baselines.items()})
        for (_, name), members in kinds
        for one in spread(_surest_first(name, members), share)
    )
    shown = sum(min(len(members), share) for members in by_kind.values())
    counts = ", ".join(f"{len(members):,} {name}" for (_, name), members in kinds)
    return (
        f"<h2>Examples</h2><p>{html.escape(counts)}. {shown} of {len(predictions):,} are shown; predictions.jsonl "
        f"holds all.</p><main>{drawn}</main>"
    )


def kind(one: Prediction, before: Prediction | None) -> tuple[int, str]:
    """(place, name) of what a prediction is shown as."""
    if one.error:
        return 0, "not asked"
    if one.score is None:
        return 5, "answered"
    if before is not None and before.score != one.score:
        return (1, "lost") if one.score < before.score else (3, "learned")
    return (2, "wrong") if one.score < 1 else (4, "right")


def _surest_first(name: str, members: Sequence[Prediction]) -> Sequence[Prediction]:
    """Of wrong answers those that the model was surest of come first: the worst ones."""
    if name != "wrong" or any(one.probability is None for one in members):
        return members
    return sorted(members, key=lambda one: (one.score, -one.probability))[:SHOWN]


def spread(members: Sequence[Member], count: int) -> list[Member]:
    """Some of the members, evenly from first to last: files and splits stand one after the other."""
    step = max(1.0, len(members) / count)
    return [members[int(number * step)] for number in range(min(count, len(members)))]


def card(
    one: Prediction, name: str, images: Callable[[str], list[Source]], others: Mapping[str, Prediction | None]
) -> str:
    """A prediction as HTML, with its images and what other models said."""
    sure = "" if one.probability is None or one.error else f" ({one.probability:.0%} sure)"
    entries = [("answer", " / ".join(dict.fromkeys(one.answers))), (f"said{sure}", one.error or one.prediction)]
    label = "said before" if len(others) == 1 else "said by {}"
    entries += [(label.format(other), before.prediction) for other, before in others.items() if before is not None]
    lines = "".join(f"<dt>{html.escape(name)}<dd>{html.escape(_shown(text)) or '—'}" for name, text in entries)
    shown = "".join(thumbnail(image) for image in images(one.id))
    return (
        f'<article class="{name.replace(" ", "-")}"><span class=kind>{name}</span>{shown}'
        f"<strong>{html.escape(_shown(one.question))}</strong><dl>{lines}</dl></article>"
    )


def _shown(text: str) -> str:
    """As much of a text as a page shows, without characters that HTML has no place for: controls, half surrogates."""
    more = f" … ({len(text):,} characters; predictions.jsonl has all)" if len(text) > _MOST else ""
    return _NOT_SHOWN.sub("\ufffd", text[:_MOST]) + more


def thumbnail(source: Source) -> str:
    """An image as HTML that holds it, small; why it cannot be opened, where that is so."""
    try:
        image = open_image(source)
    except InputError as error:
        return f"<p>{html.escape(error.lines[0])}</p>"
    image.thumbnail((THUMBNAIL * 2, THUMBNAIL * 2))  # twice: sharp on dense screens
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f'<img loading=lazy alt="" src="data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}">'

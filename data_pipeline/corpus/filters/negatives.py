"""Questions about a thing that the image does not show: what a model must learn not to make up.

A share of the pairs is asked again of an image of another topic, where the right answer is that the image does not show
it. "What is this?" has another right answer there, so the question must name its topic. Where it does not, the name
is put before it; and because that form would give the answer away, the same question is put to the right image, too.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data_pipeline.corpus.filters.pair import Pair, text_hash
from data_pipeline.corpus.filters.word_edges import stands_in
from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics.any_language import normalise

ANSWERS = {
    "en": (
        "The image does not show {topic}.",
        "This cannot be answered: {topic} is not in the image.",
        "There is no {topic} in this image.",
        "{topic} is not what this image shows.",
        "I do not see {topic} in the image.",
    ),
    "th": (
        "ภาพนี้ไม่ได้แสดง{topic}",
        "ในภาพไม่มี{topic}",
        "ตอบไม่ได้ เพราะในภาพนี้ไม่มี{topic}",
        "สิ่งที่อยู่ในภาพไม่ใช่{topic}",
        "ไม่เห็น{topic}ในภาพนี้",
    ),
}
"""The right answer, by language."""
NAMED = {
    "en": ("About {topic}: {question}", "This is about {topic}. {question}", "A question about {topic}: {question}"),
    "th": ("เกี่ยวกับ{topic} {question}", "คำถามนี้เกี่ยวกับ{topic} {question}", "ถามเรื่อง{topic}: {question}"),
}
"""How a question that does not name its topic is asked with its name."""


@dataclass(frozen=True)
class Negatives:
    """Pairs whose answer is that the image does not show it, and pairs that ask in the same form of the right one."""

    swapped: list[Pair]
    named: list[Pair]


def negatives(
    pairs: Sequence[Pair], share: float, seed: int, *, names: Mapping[str, Mapping[str, str]] | None = None
) -> Negatives:
    """Pairs with another's image, as many as a share of the pairs.

    Which pairs, which image and which wording is decided by hashes of seed and id, so that a pair more or less changes
    nothing of the others'. The image is one of the same split that shows neither the topic nor the fact in any pair.

    Args:
      share: of the pairs, between 0 and 1. Only pairs with topic and image, without an article, in a language of
        `ANSWERS` are asked again.
      names: {topic: {language: its name}}; the topic itself where there is none.

    Raises:
      InputError: a share out of its range; fewer pairs that can be asked again than the share wants.
    """
    if not 0 <= share <= 1:
        raise InputError(f"negatives: share is {share!r}; wanted 0 to 1")
    shows: dict[str, set[str]] = defaultdict(set)
    images: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if pair.image:
            shows[pair.image] |= {f"topic {pair.topic}"} | ({f"fact {pair.fact_id}"} if pair.fact_id else set())
            images[pair.split].add(pair.image)
    ordered = {split: sorted(found) for split, found in images.items()}
    wanted = round(share * len(pairs))
    chosen = Negatives([], [])
    for pair in sorted(pairs, key=lambda pair: (text_hash(f"{seed}/{pair.id}"), pair.id)):
        if len(chosen.swapped) == wanted:
            break
        if not pair.topic or not pair.image or pair.context or pair.base_language not in ANSWERS:
            continue
        if (image := _other_image(pair, ordered[pair.split], shows, seed)) is None:
            continue
        _add(chosen, pair, image, seed, (names or {}).get(pair.topic, {}).get(pair.base_language, pair.topic))
    if len(chosen.swapped) < wanted:
        raise InputError(
            f"negatives: {wanted:,} are wanted and {len(chosen.swapped):,} can be made; a pair needs a topic, no "
            f"article, a language of {', '.join(ANSWERS)}, and an image of another topic in its split: lower the share"
        )
    return chosen


def _other_image(pair: Pair, images: Sequence[str], shows: Mapping[str, set[str]], seed: int) -> str | None:
    own = {f"topic {pair.topic}", f"fact {pair.fact_id}"}
    start = text_hash(f"{seed}/{pair.id}/image") % len(images)
    for step in range(len(images)):
        image = images[(start + step) % len(images)]
        if not shows[image] & own:
            return image
    return None


def _add(chosen: Negatives, pair: Pair, image: str, seed: int, name: str) -> None:
    """The pair with another image; and, where its question needs its topic's name, with its own."""
    drawn = text_hash(f"{seed}/{pair.id}/wording")
    question = pair.question
    if not stands_in(normalise(question), normalise(name)):
        forms = NAMED[pair.base_language]
        question = forms[drawn % len(forms)].format(topic=name, question=pair.question)
        chosen.named.append(replace(pair, id=f"{pair.id}-named", question=question))
    answers = ANSWERS[pair.base_language]
    answer = answers[drawn // 7 % len(answers)].format(topic=name)
    answer = answer[0].upper() + answer[1:]
    swapped = replace(
        pair, id=f"{pair.id}-swapped", question=question, answer=answer, image=image, reasoning="", fact=""
    )
    chosen.swapped.append(replace(swapped, image_source=""))

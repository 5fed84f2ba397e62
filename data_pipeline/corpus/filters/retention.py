"""How many pairs IR and IR + CAP keep, by where the images are from: the table of SK-VQA."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from data_pipeline.corpus.filters.in_article import answer_in_article
from data_pipeline.corpus.filters.mentions import image_mention
from data_pipeline.corpus.filters.pair import Pair

ALL = "all"


def retention(
    pairs: Sequence[Pair], *, words: Mapping[str, Sequence[str]] | None = None, thai_words: bool = True
) -> list[tuple[str, int, float, float]]:
    """(image source, pairs with an article, share kept by IR, share kept by IR and CAP), the last row for all.

    Args:
      words: as `mentions.image_mention` takes them; `thai_words` as `in_article.answer_in_article`.
    """
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for pair in pairs:
        if not pair.context:
            continue
        ir = not image_mention(pair, words=words or {})
        both = ir and not answer_in_article(pair, thai_words=thai_words)
        for source in (pair.image_source or "unknown", ALL):
            for place, one in enumerate((1, ir, both)):
                counts[source][place] += one
    sources = sorted(source for source in counts if source != ALL) + [ALL] * (ALL in counts)
    return [(source, n, ir / n, both / n) for source in sources for n, ir, both in [counts[source]]]


def table(rows: Sequence[tuple[str, int, float, float]]) -> str:
    """The rows as text, in percent."""
    lines = [f"{'image source':<20}{'pairs':>10}{'IR':>8}{'IR+CAP':>8}"]
    lines += [f"{source:<20}{n:>10,}{ir:>8.0%}{both:>8.0%}" for source, n, ir, both in rows]
    return "\n".join(lines)

"""A corpus as one page to look at, before money is spent or a model is trained: images with what is asked about them.

The page is one file, images included, and needs no network. What models wrote is escaped.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.corpus import card
from data_pipeline.corpus.quality import Checked
from data_pipeline.corpus.stages.stage import Item
from vlm_jax.evaluation.report import thumbnail

SHOWN = 40
"""Images with their questions; a page of all would not open on a phone."""
_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0 1.5rem}
td,th{padding:.25rem .75rem;text-align:right;border-bottom:1px solid #8884;white-space:nowrap}
td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}
main{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(19rem,1fr));align-items:start}
article{border:1px solid #8886;border-radius:.6rem;padding:.8rem;overflow-wrap:anywhere}
article img{width:100%;max-height:16rem;object-fit:contain;border-radius:.3rem;background:#8882}
h3{margin:.5rem 0 .2rem;font-size:1.05rem}ul{padding-left:0;list-style:none}li{margin:.5rem 0}
.tag{font-size:.75rem;padding:0 .45rem;border-radius:1rem;background:#8883;margin-right:.3rem;white-space:nowrap}
.answer{font-weight:600}.small{font-size:.85rem;opacity:.8;white-space:pre-wrap}.out{border-color:#c33}
details{margin:.3rem 0}@media(max-width:30rem){h1{font-size:1.3rem}td,th{padding:.2rem .35rem;font-size:.85rem}}
"""


def page(checked: Checked, manifest: Mapping[str, Any], folder: Path) -> str:
    """The page of a corpus, as HTML.

    Args:
      folder: of the corpus, whose images are read.
    """
    title = manifest["title"] or "A corpus of questions about images"
    stages = _table(("stage", "items", "left out"), card.stage_rows(manifest))
    filters = _table(("filter", "kept", "left out", "why"), card.filter_rows(manifest))
    if rows := card.similarity_rows(manifest):
        filters += _table(card.SIMILARITY, rows)
    by_image: dict[str, list[Item]] = {}
    for item in checked.items:
        by_image.setdefault(item["image"], []).append(item)
    shown = _spread(sorted(by_image), SHOWN)
    cards = "".join(_card(folder / "images" / image, by_image[image]) for image in shown)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>{_counts(manifest)} ${sum(one['cost'] for one in manifest['calls']):.2f} were paid.</p>"
        f"{stages}"
        f"{filters}{_left_out(checked, folder)}"
        f"<h2>Questions</h2><p>{len(shown)} of {len(by_image)} images, with all that is asked about each.</p>"
        f"<main>{cards}</main></html>\n"
    )


def _spread(names: Sequence[str], count: int) -> list[str]:
    step = max(1.0, len(names) / count)
    return [names[int(place * step)] for place in range(min(count, len(names)))]


def _counts(manifest: Mapping[str, Any]) -> str:
    splits = ", ".join(f"{count:,} in {html.escape(name)}" for name, count in manifest["splits"].items())
    return f"{splits}; {manifest['images']:,} images; {manifest['different_questions']:,} different questions."


def _left_out(checked: Checked, folder: Path) -> str:
    """Examples of what filters left out, so that a filter that takes the wrong ones is seen."""
    examples = [one for count in checked.counts for one in count.examples]
    if not examples:
        return ""
    cards = "".join(
        f"<article class=out>{thumbnail(one.pair.image)}<span class=tag>{html.escape(one.filter)}</span>"
        f"<h3{_language(one.pair.language)}>{html.escape(one.pair.question)}</h3>"
        f"<div class=answer>{html.escape(one.pair.answer)}</div><div class=small>{html.escape(one.reason)}</div>"
        "</article>"
        for one in examples
    )
    return f"<details><summary>Examples of what was left out ({len(examples)})</summary><main>{cards}</main></details>"


def _card(image: Path, items: Sequence[Item]) -> str:
    names = list(dict.fromkeys(item["name"] for item in items if item.get("name")))
    articles = list(dict.fromkeys(item["context"] for item in items if item.get("context")))
    article = "".join(f"<details><summary>article</summary><p>{html.escape(text)}</p></details>" for text in articles)
    return (
        f"<article>{thumbnail(str(image))}<h3>{html.escape(', '.join(names) or items[0]['image_source'])}</h3>"
        f"{article}<ul>{''.join(map(_question, items))}</ul></article>"
    )


def _question(item: Item) -> str:
    tags = "".join(f"<span class=tag>{html.escape(str(tag))}</span>" for tag in (item["split"], item["task"]) if tag)
    steps = f"<div class=small>{html.escape(item['reasoning'])}</div>" if item.get("reasoning") else ""
    fact = f"<div class=small>fact: {html.escape(item['fact'])}</div>" if item.get("fact") else ""
    return (
        f"<li{_language(item['language'])}>{tags}{html.escape(item['question'])} "
        f"<span class=answer>{html.escape(item['answer'])}</span>{steps}{fact}</li>"
    )


def _language(code: str) -> str:
    return f' lang="{html.escape(code, quote=True)}"'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{html.escape(cell)}" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in row) for row in rows)
    return f"<div class=wide><table><tr>{top}{body}</table></div>"

"""Writes records whose context holds the passages found for their questions, and tells recall@k.

    .venv/bin/python scripts/retrieve.py --records=questions.jsonl --index=runs/index \
        --encoder=clip --output=runs/with_passages.jsonl --k=10

What is written is trained on and evaluated as any other records, with a template that shows {context}. Where records
name the passage that answers them (--gold), --oracle shows it alone, --distractors=3 adds three wrong ones, and recall
is told. --without_answer=0.2 makes contexts that lack the answer, which becomes --refusal. docs/retrieval.md says more.
"""

import interrupts  # noqa: F401 - first of all

import functools
import os

from absl import flags

import command_line

flags.DEFINE_string("records", None, "data that training reads", required=True)
flags.DEFINE_string("index", None, "folder of scripts/build_index.py", required=True)
flags.DEFINE_string("encoder", None, "the encoder that the index was built with", required=True)
flags.DEFINE_string("output", None, "a JSONL file", required=True)
flags.DEFINE_string("gold", "passage_id", "where a record names its passage: fact_id, or a key of its provenance")
flags.DEFINE_integer("k", 10, "passages of a context", lower_bound=1)
flags.DEFINE_bool("oracle", False, "show the gold passages alone, as a search that misses nothing would")
flags.DEFINE_integer(
    "distractors", 0, "wrong passages in a context beside its --k, all in a random order", lower_bound=0
)
flags.DEFINE_float(
    "without_answer", 0.0, "share of records whose context lacks the answer", lower_bound=0, upper_bound=1
)
flags.DEFINE_string("refusal", "unanswerable", "the right answer where a context lacks the answer (--without_answer)")
flags.DEFINE_integer("seed", 0, "of --without_answer and of random orders")
flags.DEFINE_enum("fusion", "weighted", ["weighted", "rrf"], "of similarities: a weighted sum, or reciprocal ranks")
flags.DEFINE_enum("normalise", "minmax", ["minmax", "zscore", "none"], "of similarities, before they are summed")
flags.DEFINE_float("image_to_image", 1.0, "weight of the similarity of the question's image and a passage's")
flags.DEFINE_float("image_to_text", 1.0, "weight of the similarity of the question's image and a passage's words")
flags.DEFINE_float("text_to_text", 1.0, "weight of the similarity of the question's words and a passage's")
flags.DEFINE_float("text_to_image", 1.0, "weight of the similarity of the question's words and a passage's image")
flags.DEFINE_integer("depth", 100, "passages that each similarity finds, of which one order is made", lower_bound=1)
flags.DEFINE_enum("backend", "device", ["device", "faiss"], "what compares vectors; both exactly")
flags.DEFINE_string("format", "auto", "of the records, as in training")
flags.DEFINE_string("image_root", None, "the folder that relative image paths start from; else the records' own")


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from data_pipeline import retrieval_run
    from data_pipeline.contexts import ContextRules
    from vlm_jax import progress
    from vlm_jax.retrieval.fusion import CHANNELS

    flag = {name: flags.FLAGS[name].value for name in flags.FLAGS}
    rules = {name: flag[name] for name in ContextRules.__dataclass_fields__}
    named = {name: flag[name] for name in retrieval_run.Retrieval.__dataclass_fields__ if name in flag}
    weights = {name: flag[name] for name in CHANNELS}
    retrieval = retrieval_run.Retrieval(**named, weights=weights, rules=ContextRules(**rules))
    summary = retrieval_run.retrieve(retrieval, progress=functools.partial(progress.shown, unit="batch"))
    print(retrieval_run.closing_lines(summary, retrieval.output))


if __name__ == "__main__":
    command_line.run(main)

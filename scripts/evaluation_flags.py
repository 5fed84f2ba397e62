"""The flags of an evaluation, of every program that asks a model a benchmark."""

from typing import Any

from absl import flags

import token_flags
from vlm_jax.errors import InputError
from vlm_jax.evaluation import metrics

flags.DEFINE_string("model", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string(
    "base", "", "where the model lies that --model is an adapter of, or a run with adapters, if it moved"
)
flags.DEFINE_string(
    "benchmark", None, "records of any form, or a corpus's split, DIR#synthetic; commas between", required=True
)
flags.DEFINE_string("output", None, "folder of the report", required=True)
flags.DEFINE_string("images", "given", "given, swapped (those of another subject) or blank")
flags.DEFINE_string(
    "metric",
    "normalised",
    f"how answers are scored (docs/evaluation.md). {metrics.described()}. With final_answer: before it, as in "
    "final_answer:anls, only what a chain of thought comes to",
)
flags.DEFINE_string("bem", "", "folder of a BertForSequenceClassification, for the metrics bem and encyclopedic_vqa")
flags.DEFINE_string("baseline", "", "folder of an earlier evaluation to compare with")
flags.DEFINE_string("format", "auto", "of the benchmark: records, table, llava, vqav2, parquet, … (docs/data.md)")
flags.DEFINE_string("image_root", None, "what relative image paths start from")
flags.DEFINE_multi_string("column", [], "our name = the benchmark's, as --column=image=img_path; once for each name")
flags.DEFINE_string("question", "", "asked by rows that ask nothing themselves: captions, images in class folders")
flags.DEFINE_integer("max_new_tokens", 64, "tokens an answer may have", lower_bound=1)

SAME = (
    *("model", "benchmark", "output", "base", "images", "metric", "bem", "baseline", "format", "image_root"),
    *("question", "max_new_tokens"),
)
"""Flags that are settings of an evaluation by their names."""


def settings() -> dict[str, Any]:
    """What the flags ask for, as `data_pipeline.evaluation_run.Evaluation` takes it.

    Raises:
      InputError: a column is named twice, or a share of the visual tokens is no number.
    """
    named = {name: flags.FLAGS[name].value for name in SAME}
    return {**named, "columns": columns(flags.FLAGS.column), **token_flags.options()}


def columns(pairs: list[str]) -> dict[str, str]:
    """The columns of a benchmark by our names; which names there are, and that each has one, is checked later."""
    named: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if ours in named:
            raise InputError(f"--column={pair}: {ours} is named already, as {named[ours]}; name it once")
        named[ours] = theirs
    return named

"""The flags of an evaluation, of every program that asks a model a benchmark."""

from typing import Any

from absl import flags

import token_flags
from vlm_jax.errors import InputError
from vlm_jax.evaluation import metrics

flags.DEFINE_multi_string(
    "model",
    None,
    "Hugging Face folder, hub id, run folder or checkpoint; teacher:kind=…,model=…,endpoint=… asks a teacher by the "
    "settings of config.teachers. Several times: several models, side by side in one report",
    required=True,
)
flags.DEFINE_string(
    "base", "", "where the model lies that --model is an adapter of, or a run with adapters, if it moved"
)
flags.DEFINE_string(
    "benchmark",
    None,
    "a name (docs/benchmarks.md: textvqa, chartqa, …) with --data; or records of any form, or a corpus's split, "
    "DIR#synthetic; commas between",
    required=True,
)
flags.DEFINE_string("data", "", "official files of a benchmark that is named; commas between")
flags.DEFINE_string("output", None, "folder of the report", required=True)
flags.DEFINE_string("images", "given", "given, swapped (those of another subject) or blank")
flags.DEFINE_string(
    "metric",
    None,
    f"how answers are scored (docs/evaluation.md); the benchmark's own unless given, else normalised. "
    f"{metrics.described()}. With final_answer: before it, as in final_answer:anls, only what a chain of thought comes "
    "to",
)
flags.DEFINE_string("bem", "", "folder of a BertForSequenceClassification, for the metrics bem and encyclopedic_vqa")
flags.DEFINE_string(
    "judge",
    "",
    "a teacher that judges the answers besides: kind=…,model=…,endpoint=…, settings of config.teachers. The report has "
    "its figure and how far it agrees with the metric",
)
flags.DEFINE_string("baseline", "", "folders of earlier evaluations to compare with; commas between")
flags.DEFINE_string(
    "general", "", "records of general sets, to see what was forgotten; commas between. Scored by normalised, and apart"
)
flags.DEFINE_enum(
    "backend", "jax", ["jax", "transformers"], "transformers answers by PyTorch, from a Hugging Face folder, to compare"
)
flags.DEFINE_integer(
    "devices",
    0,
    "devices that answer side by side, each with a copy of the weights; 0: all accelerators there are, or the CPU",
    lower_bound=0,
)
flags.DEFINE_integer(
    "tensor", 1, "devices among which the weights of one copy are divided, where one does not hold them", lower_bound=1
)
flags.DEFINE_string("format", "auto", "of the benchmark: records, table, llava, vqav2, parquet, … (docs/data.md)")
flags.DEFINE_string("image_root", None, "what relative image paths start from")
flags.DEFINE_multi_string("column", [], "our name = the benchmark's, as --column=image=img_path; once for each name")
flags.DEFINE_string("question", "", "asked by rows that ask nothing themselves: captions, images in class folders")
flags.DEFINE_string(
    "template",
    None,
    r"around each question: {question}, and {context} where one is shown: '{context}\n\n{question}'; the benchmark's "
    "own unless given, else the question alone",
)
flags.DEFINE_string("suffix", None, "after each question; the benchmark's own unless given, else none")
flags.DEFINE_integer(
    "max_new_tokens", None, "tokens an answer may have; the benchmark's own unless given, else 64", lower_bound=1
)

RECOMMENDED = "recommended"
"""As `data_pipeline.evaluation_settings.RECOMMENDED`: of --visual_tokens, the bounds that the benchmark recommends."""
SAME = (
    *("model", "benchmark", "data", "output", "base", "images", "metric", "bem", "judge", "baseline", "general"),
    *("backend", "devices", "tensor"),
    *("format", "image_root", "question", "template", "suffix", "max_new_tokens"),
)
"""Flags that are settings of an evaluation by their names."""


def settings() -> dict[str, Any]:
    """What the flags ask for, as `data_pipeline.evaluation_run.Evaluation` takes it.

    Raises:
      InputError: a column is named twice, or a share of the visual tokens is no number.
    """
    named = {name: flags.FLAGS[name].value for name in SAME}
    named["model"] = flags.FLAGS.model[0]
    return {**named, "columns": columns(flags.FLAGS.column), **token_flags.options(also=(RECOMMENDED,))}


def columns(pairs: list[str]) -> dict[str, str]:
    """The columns of a benchmark by our names; which names there are, and that each has one, is checked later."""
    named: dict[str, str] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        if ours in named:
            raise InputError(f"--column={pair}: {ours} is named already, as {named[ours]}; name it once")
        named[ours] = theirs
    return named

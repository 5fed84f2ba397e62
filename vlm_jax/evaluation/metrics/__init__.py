"""Whether an answer is right: the official rules of benchmarks, and rules for any language, by name.

    score("vqa_evalai", "2 doors", ["two doors"] * 7 + ["2"] * 3)

A file has one rule. Nothing here needs a model or an accelerator but `bem` and `judge`, and importing it is quick.
docs/evaluation.md says which metric is for what, and where each rule is from.
"""

from vlm_jax.evaluation.metrics.registry import FINAL_ANSWER, METRICS, Metric, described, error_in, find, label, score

__all__ = ["FINAL_ANSWER", "METRICS", "Metric", "described", "error_in", "find", "label", "score"]

"""The table of benchmarks: an entry is what `scripts/evaluate.py --benchmark=NAME` does unless a flag says otherwise.

To add one, write an entry, and a reader in `data_pipeline.sources` where none reads its files yet; then
`docs/benchmarks.md`, which a test compares. Sizes are those that the publishers state.
"""

import difflib
from collections.abc import Mapping

from vlm_jax.errors import InputError
from vlm_jax.evaluation.benchmark import Benchmark, Headline, Split, Submission

SHORT = "\nAnswer the question using a single word or phrase."
"""LLaVA-1.5's words for short answers (Liu et al. 2023, "Improved Baselines with Visual Instruction Tuning")."""
_SHORT_FROM = 'LLaVA-1.5 and lmms-eval: "Answer the question using a single word or phrase."'
_DETAILED, _DETAILED_FROM = (256, 2048), "lmms-eval's bounds for Qwen2.5-VL"
_PHOTO, _PHOTO_FROM = (128, 512), "MPA's bounds"
_HIDDEN = Split(answered=False)

_ENTRIES = (
    Benchmark(
        name="textvqa",
        title="TextVQA",
        files="TextVQA_0.5.1_{split}.json, images in train_images and test_images",
        form="textvqa",
        splits={"train": Split(size=34_602), "val": Split(size=5_000), "test": Split(answered=False, size=5_734)},
        metric="vqa_evalai",
        suffix=SHORT,
        asked_as=f"{_SHORT_FROM} (lmms-eval also writes the question by str.capitalize); at most 32 tokens: ours",
        max_new_tokens=32,
        visual_tokens=_DETAILED,
        tokens_from=_DETAILED_FROM,
        groups=("image_class",),
        submission=Submission("question_id"),
    ),
    Benchmark(
        name="stvqa",
        title="ST-VQA",
        files="train_task_1.json or test_task_1.json, images where file_path says",
        form="stvqa",
        splits={"train": Split(), "test": _HIDDEN},
        metric="anls",
        suffix=SHORT,
        asked_as=f"{_SHORT_FROM}; at most 32 tokens: lmms-eval",
        max_new_tokens=32,
        visual_tokens=_DETAILED,
        tokens_from=_DETAILED_FROM,
        groups=("dataset",),
        submission=Submission("question_id"),
    ),
    Benchmark(
        name="docvqa",
        title="DocVQA",
        files="{split}_v1.0_withQT.json or {split}_v1.0.json, images in documents",
        form="docvqa",
        splits={"train": Split(size=39_463), "val": Split(size=5_349), "test": Split(answered=False, size=5_188)},
        metric="anls",
        suffix=SHORT,
        asked_as=f"{_SHORT_FROM}; at most 32 tokens: lmms-eval",
        max_new_tokens=32,
        visual_tokens=_DETAILED,
        tokens_from=_DETAILED_FROM,
        groups=("question_type",),
        submission=Submission("questionId"),
    ),
    Benchmark(
        name="chartqa",
        title="ChartQA",
        files="{split}_human.json,{split}_augmented.json, images in {split}/png",
        form="chartqa",
        splits={"train": Split(), "val": Split(size=1_920), "test": Split(size=2_500)},
        metric="relaxed_accuracy",
        suffix="\nAnswer the question with a single word.",
        asked_as='lmms-eval: "Answer the question with a single word."; at most 16 tokens: lmms-eval',
        max_new_tokens=16,
        visual_tokens=_DETAILED,
        tokens_from=_DETAILED_FROM,
        groups=("source",),
        headline=Headline("mean", "source", ("human", "augmented")),
    ),
    Benchmark(
        name="okvqa",
        title="OK-VQA",
        files=(
            "OpenEnded_mscoco_{split}2014_questions.json, mscoco_{split}2014_annotations.json beside it; COCO's images"
        ),
        form="okvqa",
        splits={"train": Split(size=9_009), "val": Split(size=5_046)},
        metric="vqa_official",
        suffix=SHORT,
        asked_as=(
            'LLaVA-1.5: "Answer the question using a single word or phrase." (lmms-eval asks as for VizWiz); at most '
            "32 tokens: ours"
        ),
        max_new_tokens=32,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
        groups=("answer_type", "question_type"),
        submission=Submission("question_id"),
    ),
    Benchmark(
        name="vqav2",
        title="VQAv2",
        files=(
            "v2_OpenEnded_mscoco_{split}2014_questions.json, v2_mscoco_{split}2014_annotations.json beside it; COCO's "
            "images"
        ),
        form="vqav2",
        splits={
            "train": Split(size=443_757),
            "val": Split(size=214_354),
            "test-dev": Split(answered=False, size=107_394),
            "test": Split(answered=False, size=447_793),
        },
        metric="vqa_official",
        suffix=SHORT,
        asked_as=f"{_SHORT_FROM}; at most 16 tokens: lmms-eval",
        max_new_tokens=16,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
        groups=("answer_type", "question_type"),
        submission=Submission("question_id"),
    ),
    Benchmark(
        name="vizwiz",
        title="VizWiz",
        files="{split}.json, images in {split}",
        form="vizwiz",
        splits={"train": Split(size=20_523), "val": Split(size=4_319), "test": Split(answered=False, size=8_000)},
        metric="vizwiz",
        suffix="\nWhen the provided information is insufficient, respond with 'Unanswerable'." + SHORT,
        asked_as=(
            "LLaVA-1.5 and lmms-eval: \"When the provided information is insufficient, respond with 'Unanswerable'.\", "
            "then as TextVQA (lmms-eval also writes the question by str.capitalize); at most 32 tokens: ours"
        ),
        max_new_tokens=32,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
        groups=("answer_type", "answerable"),
        answerability=True,
        submission=Submission("image"),
    ),
    Benchmark(
        name="infoseek",
        title="InfoSeek",
        files="infoseek_{split}.jsonl, with _qtype and _withkb files beside it where they are there; OVEN's images",
        form="infoseek",
        splits={
            "train": Split(),
            "val": Split(size=73_620),
            "test": Split(answered=False, size=347_980),
            "human": _HIDDEN,
        },
        metric="infoseek",
        template="Question: {question} Short answer:",
        asked_as='infoseek_eval\'s run_blip2_infoseek.py: "Question: {} Short answer:"; at most 32 tokens: ours',
        max_new_tokens=32,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
        groups=("data_split", "question_type"),
        headline=Headline("harmonic_mean", "data_split", ("unseen_question", "unseen_entity")),
        submission=Submission("data_id", "prediction", lines=True),
    ),
    Benchmark(
        name="viquae",
        title="ViQuAE",
        files="{split}.jsonl, images in images",
        form="viquae",
        splits={"train": Split(size=1_190), "validation": Split(size=1_250), "test": Split(size=1_257)},
        metric="squad_em",
        also=("squad_f1",),
        suffix=SHORT,
        asked_as='LLaVA-1.5: "Answer the question using a single word or phrase."; at most 32 tokens: ours',
        max_new_tokens=32,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
    ),
    Benchmark(
        name="encyclopedic_vqa",
        title="Encyclopedic-VQA",
        files="{split}.csv, images in inaturalist and landmarks",
        form="encyclopedic_vqa",
        splits={"train": Split(), "val": Split(), "test": Split()},
        metric="encyclopedic_vqa",
        suffix=SHORT,
        asked_as='LLaVA-1.5: "Answer the question using a single word or phrase."; at most 32 tokens: ours',
        max_new_tokens=32,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
        groups=("question_type", "dataset", "wikipedia_page"),
    ),
    Benchmark(
        name="sk_vqa",
        title="SK-VQA",
        files="JSON, JSON lines or Parquet with image, context, question and answer",
        form="sk_vqa",
        splits={"train": Split(), "test": Split()},
        metric="squad_em",
        also=("squad_f1",),
        template="{context}\n\n{question}",
        suffix=SHORT,
        asked_as="ours: the context, then the question as in LLaVA-1.5; at most 32 tokens: ours",
        max_new_tokens=32,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
    ),
    Benchmark(
        name="syn_150",
        title="Syn-150",
        files="CSV or JSON lines with image, question and answer; synthetic images",
        form="table",
        splits={"test": Split(size=154)},
        metric="normalised",
        asked_as="ours: the question as it is; at most 64 tokens: ours",
        max_new_tokens=64,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
    ),
    Benchmark(
        name="syn_to_real_164",
        title="Syn-to-Real-164",
        files="CSV or JSON lines with image, question and answer; photographs",
        form="table",
        splits={"test": Split(size=164)},
        metric="normalised",
        asked_as="ours: the question as it is; at most 64 tokens: ours",
        max_new_tokens=64,
        visual_tokens=_PHOTO,
        tokens_from=_PHOTO_FROM,
    ),
)

BENCHMARKS: Mapping[str, Benchmark] = {entry.name: entry for entry in _ENTRIES}
"""{name: entry}."""


def named(name: str) -> Benchmark:
    """Raises InputError where there is no benchmark of that name, with the nearest."""
    if name not in BENCHMARKS:
        near = difflib.get_close_matches(name.lower(), BENCHMARKS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(BENCHMARKS)}"
        raise InputError(f"no benchmark is called {name!r}; {meant}")
    return BENCHMARKS[name]

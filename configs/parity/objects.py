"""The quickstart's world: a tiny model that knows invented objects teaches a smaller one, on pictures without labels.

    .venv/bin/python benchmarks/parity_world.py --output=runs/parity_world
    .venv/bin/python scripts/align_parity.py --config=configs/parity/objects.py --workdir=runs/parity_objects

The first command makes both models and the pictures (docs/parity.md). Behind a colon stands the seed of what is
written, drawn and trained: `--config=configs/parity/objects.py:1`. Minutes on two cores.
"""

from data_pipeline.parity.settings import parity_config

WORLD = "runs/parity_world"


def get_config(seed="0"):
    return parity_config(
        seed=int(seed),
        images={"path": f"{WORLD}/images"},
        annotate={"prompt": "objects", "pairs": 4, "max_output_tokens": 64, "same_question": 1000},
        ask={"suffix": "", "max_output_tokens": 16},
        training={
            "model": {"path": f"{WORLD}/student", "max_visual_tokens": 16},
            "batch": {"rows": 6, "sequence_length": 256, "patches": 256},
            "train": {"epochs": 0, "steps": 200, "remat": "none", "seed": int(seed)},
            "optimizer": {"name": "muon", "learning_rate": 1e-3, "weight_decay": 0.01, "warmup_fraction": 0.05},
        },
        evaluate={
            "benchmark": f"{WORLD}/test.jsonl",
            "general": f"{WORLD}/general.jsonl",
            "max_new_tokens": 16,
        },
        teachers={"text": {"kind": "local", "model": f"{WORLD}/teacher", "rows": 16, "seed": int(seed)}},
    )

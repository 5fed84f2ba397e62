"""Every file in configs/ that trains is in order: known keys, values in range, parameters that its settings select."""

import runpy
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from vlm_jax.adapters import quantised
from vlm_jax.models import attention, remat
from vlm_jax.models.presets import PRESETS
from vlm_jax.models.token_reduction import methods
from vlm_jax.processing import token_budget
from vlm_jax.training import config as settings
from vlm_jax.training.config import check_config
from vlm_jax.training.selection import select

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_in_order(path):
    stored = runpy.run_path(str(path))
    config = stored["get_config"]()
    config.data.path = config.data.path or ("" if config.data.mixture else "mine.jsonl")
    check_config(config)
    kind = {"vit": "vit-qwen2.5-3b", "siglip": "siglip-qwen2.5-3b"}.get(path.stem.split("_")[0])
    model = PRESETS[kind or ("3b" if "3b" in path.stem else "tiny")]
    chosen = select(config, model, jnp.bfloat16)
    assert chosen.trainable and set(chosen.trainable) <= set(chosen.abstract)
    assert f"configs/{path.name}" in stored["__doc__"] or "make " in stored["__doc__"]
    adapters = {name for name in chosen.abstract if "/adapter/" in name}
    assert bool(adapters) == bool(config.lora.rank)
    beside = {name for name in chosen.trainable if not name.startswith("connector/")} if kind else chosen.trainable
    assert not adapters or adapters == beside


def test_the_words_of_settings_are_those_that_the_parts_know():
    assert settings.ATTENTION == attention.IMPLEMENTATIONS
    assert settings.QUANTISED == quantised.KINDS
    assert set(settings.REMAT) == {"auto", *remat.POLICIES} and settings.REMAT[1:6] == remat.BY_RECOMPUTATION
    assert token_budget.METHODS == (token_budget.RESIZE, *methods.METHODS)


def test_settings_are_checked_and_sweeps_planned_without_loading_jax_or_transformers():
    code = """if True:
        import sys
        import sweep
        from data_pipeline import sources, sweep_run
        from vlm_jax.training.config import check_config, default_config
        config = default_config()
        config.model.path, config.data.path = "a", "b.csv"
        check_config(config)
        print(*({"jax", "flax", "optax", "transformers"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")

"""Tables in 8 bits: off by no more than is said, and answers those of what they stand for."""

import jax.numpy as jnp
import numpy as np
import pytest

import vlm_jax
from tests.tiny_models import PHOTOS, assistant, save_tiny, user
from vlm_jax.adapters import quantised, quantised_tables

QUESTION = [user("What is it called?", str(PHOTOS / "chelsea.jpg")), assistant("Chelsea")]


def stands_for(parameters, path) -> np.ndarray:
    return np.asarray(parameters[f"{path}/codes"], np.float32) * np.asarray(parameters[f"{path}/scales"])


@pytest.mark.parametrize(("kind", "tied"), [pytest.param("nf4", False, marks=pytest.mark.evidence), ("int8", True)])
def test_answers_are_those_of_the_rounded_weights_and_values_within_the_bound(tmp_path, tied, kind):
    save_tiny(tmp_path / "model", tied=tied)
    plain = vlm_jax.load(tmp_path / "model", dtype="float32")
    model = vlm_jax.load(tmp_path / "model", dtype="float32", quantise=kind, quantise_tables=True)
    rounded = dict(plain.parameters)
    for path in quantised_tables.PATHS[: 1 if tied else 2]:
        table, ours = np.asarray(plain.parameters[path]), stands_for(model.parameters, path)
        largest = np.abs(table).max(axis=1 if path == "embedding" else 0, keepdims=True)
        assert (np.abs(ours - table) <= largest / 254 * (1 + 1e-5)).all()
        rounded[path] = jnp.asarray(ours)
    for path, kernel in plain.parameters.items():
        if f"{path}/scales" in model.parameters and path not in quantised_tables.PATHS:
            codes, scales = (model.parameters[f"{path}/{name}"] for name in (quantised.CODES[kind], "scales"))
            rounded[path] = quantised.dequantise(codes, scales, kind, kernel.shape[-2])
    plain.parameters = rounded
    expected = plain.logits(QUESTION)
    assert np.abs(model.logits(QUESTION) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert isinstance(model.generate(QUESTION[:1], max_new_tokens=4), str)


def test_a_table_is_quantised_alike_in_parts_of_it(monkeypatch):
    table = np.random.default_rng(0).normal(size=(70, 24)).astype(np.float32)
    whole = quantised_tables.quantised("embedding", table)
    monkeypatch.setattr(quantised_tables, "TOKENS", 16)
    for path, stored in (("embedding", table), ("head", table.T)):
        parts = quantised_tables.quantised(path, stored)
        for name in ("codes", "scales"):
            ours = np.asarray(parts[f"{path}/{name}"])
            np.testing.assert_array_equal(ours if path == "embedding" else ours.T, whole[f"embedding/{name}"])


@pytest.mark.parametrize(
    ("preset", "tables", "share"), [("3b", False, 0.35), ("7b", True, 0.32), ("qwen2-2b", True, 0.32)]
)
def test_published_sizes_take_little(preset, tables, share):
    from benchmarks.conversion_memory import nf4_share

    assert nf4_share(preset, tables)[1] <= share

"""What a process settles before its first program: kept programs, and no TPU where there is none."""

import json
import os
import subprocess
import sys

import jax
import pytest

from tests.started import ROOT
from vlm_jax.parallel import starting

DIR, ENABLED = "jax_compilation_cache_dir", "jax_enable_compilation_cache"
FIRST_ANSWER = """
import json, sys
from collections import Counter
import vlm_jax
import jax
happened = Counter()
jax.monitoring.register_event_listener(lambda event, **_: happened.update([event.rpartition("/")[2]]))
model = vlm_jax.load("vlm_jax/assets/tiny_base")
parts = [{"type": "image", "image": "tests/data/photos/coffee.jpg"}, {"type": "text", "text": "What is it?"}]
answer = model.generate([{"role": "user", "content": parts}], max_new_tokens=8)
loaded = [name for name in ("torch", "orbax.checkpoint", "transformers.models.auto") if name in sys.modules]
counts = {"hits": happened["cache_hits"], "misses": happened["cache_misses"]}
print(json.dumps({"answer": answer, **counts, "loaded": loaded}))
"""


@pytest.fixture
def unset(monkeypatch):
    """JAX as nobody has set it; put back afterwards."""
    names = (DIR, ENABLED, starting.MIN_COMPILE_TIME, "jax_platforms")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.delenv(starting.MIN_COMPILE_TIME.upper(), raising=False)
    for name, value in zip(names, (None, True, starting.JAX_MIN_COMPILE_TIME, None), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_second_fresh_process_compiles_nothing_before_its_first_answer(tmp_path):
    kept = {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    skipped = ("JAX_COMPILATION_CACHE_DIR", "JAX_PLATFORMS", starting.MIN_COMPILE_TIME.upper())
    environment = {name: value for name, value in os.environ.items() if name not in skipped} | kept
    answers = []
    for _ in range(2):
        command = [sys.executable, "-c", FIRST_ANSWER]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # of a TPU that is not there, of PyTorch that is not used
        answers.append(json.loads(done.stdout))
    first, second = answers
    assert first["misses"] > 0 and first["hits"] == 0
    assert second == {**first, "hits": first["misses"], "misses": 0}
    assert first["misses"] <= 6  # the two programs of an answer, its keys, and little else
    assert first["loaded"] == []


def test_programs_are_kept_in_the_users_cache_however_short_they_compile(unset, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    starting.keep_compiled_programs()
    assert getattr(jax.config, DIR) == str(tmp_path / "vlm_jax" / "compiled")
    assert getattr(jax.config, starting.MIN_COMPILE_TIME) == 0


@pytest.mark.parametrize(("name", "value"), [(DIR, "/somewhere/else"), (DIR, ""), (ENABLED, False)])
def test_what_a_user_set_about_the_cache_stays(unset, monkeypatch, tmp_path, name, value):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(name, value)
    before = getattr(jax.config, DIR)
    starting.keep_compiled_programs()
    assert getattr(jax.config, DIR) == before
    assert getattr(jax.config, starting.MIN_COMPILE_TIME) == starting.JAX_MIN_COMPILE_TIME
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("by", ["config", "environment"])
def test_a_users_least_compile_time_stays(unset, monkeypatch, tmp_path, by):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if by == "config":
        jax.config.update(starting.MIN_COMPILE_TIME, 5.0)
    else:
        monkeypatch.setenv(starting.MIN_COMPILE_TIME.upper(), "1.0")
    before = getattr(jax.config, starting.MIN_COMPILE_TIME)
    starting.keep_compiled_programs()
    assert getattr(jax.config, starting.MIN_COMPILE_TIME) == before


def test_a_cache_that_cannot_be_made_is_done_without(unset, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    starting.keep_compiled_programs()
    assert getattr(jax.config, DIR) is None


@pytest.mark.parametrize(
    ("libtpu", "devices", "platforms", "expected"),
    [
        (True, [], None, "cpu"),
        (True, ["/dev/accel0"], None, None),
        (True, ["/dev/nvidia0"], None, None),
        (True, [], "tpu", "tpu"),
        (False, [], None, None),
    ],
)
def test_the_cpu_alone_is_tried_where_libtpu_has_no_tpu(unset, monkeypatch, libtpu, devices, platforms, expected):
    jax.config.update("jax_platforms", platforms)
    environment = dict(os.environ)
    monkeypatch.setattr(starting.importlib.util, "find_spec", lambda name: object() if libtpu else None)
    monkeypatch.setattr(starting.glob, "glob", lambda pattern: [one for one in devices if one[:9] == pattern[:9]])
    starting.leave_absent_tpu_alone()
    assert (jax.config.jax_platforms or None) == expected
    assert dict(os.environ) == environment

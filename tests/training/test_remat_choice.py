"""train.remat=auto: the least recomputation that fits, found once and remembered; and what cannot be had is refused."""

import json
import shutil

import numpy as np
import pytest

from data_pipeline.training_run import run
from tests.tiny_models import PHOTOS
from tests.training.tiny_run import CAPACITY, ROWS, make_trainer
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.parallel import program_cost
from vlm_jax.processing.rows import RowSpec
from vlm_jax.training import remat_choice
from vlm_jax.training.config import check_config, default_config
from vlm_jax.training.trainer import check_remat

SIZES = {"none": 900, "products": 500, "projections": 300, "attention": 250, "full": 200}


@pytest.fixture
def asked(one_layer, tmp_path, monkeypatch):
    """`asked(limit) -> (policy, policies that were compiled, what was said)`, of a trainer whose steps take `SIZES`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    shapes = [RowSpec(CAPACITY, 588, 4).batch(ROWS)]

    def ask(limit, sizes=SIZES):
        compiled, said = [], []

        def most_memory(trainer, shapes):
            compiled.append(trainer.remat)
            return sizes[trainer.remat]

        monkeypatch.setattr(remat_choice, "most_memory", most_memory)

        def build(remat):
            return make_trainer(one_layer, 1, (1, 1, 1), {"train__remat": remat})

        trainer = remat_choice.choose(build, shapes, limit, say=said.append)
        return trainer.remat, compiled, said

    return ask


@pytest.mark.parametrize(
    ("limit", "expected", "compiled"),
    [
        (1000, "none", 1),  # nine tenths are exactly enough
        (999, "products", 2),
        (400, "projections", 3),
        (290, "attention", 4),
        (10, "full", 4),  # what nothing fits is told by its report
    ],
)
def test_the_first_that_fits_is_taken_and_found_once(asked, limit, expected, compiled):
    policy, tried, said = asked(limit)
    assert policy == expected and len(tried) == compiled
    again, tried, told = asked(limit)
    assert again == expected and not tried and told == [f"train.remat=auto: {expected}, as was found before"]
    assert asked(limit + 1, {**SIZES, "none": limit})[1], "of another device nothing is remembered"


def test_what_the_compiler_cannot_place_does_not_fit(asked):
    policy, _, said = asked(1000, {**SIZES, "none": None})
    assert policy == "products" and "none takes more than the compiler can place" in said[0]


def test_without_a_known_memory_nothing_is_computed_again_and_that_is_told(asked):
    policy, tried, (said,) = asked(None)
    assert policy == "none" and not tried and "is not known here" in said


def test_what_was_remembered_badly_is_found_again(asked, tmp_path):
    asked(1000)
    (place,) = (tmp_path / "vlm_jax" / "remat").iterdir()
    for content in ("", "[]", '{"remat": "dots"}'):
        place.write_text(content)
        assert asked(1000)[:2] == ("none", ["none"])


def test_hosts_take_the_same_whatever_each_alone_remembers_or_has_room_for(asked, monkeypatch):
    asked(1000)

    def others(content):
        """The other host remembers nothing, and has too little room for what keeps everything."""
        answers = {b"none": b"", b"fits": b"" if not seen else b"fits"}
        seen.extend([content] if content == b"fits" else [])
        return [content, answers[content]]

    seen = []
    monkeypatch.setattr(remat_choice.hosts, "gathered", others)
    policy, tried, said = asked(1000)
    assert policy == "products" and tried == ["none", "products"] and said[0].endswith("too much for another host")


def test_the_memory_of_a_real_step_is_the_compilers(one_layer):
    shapes = [RowSpec(CAPACITY, 588, 4).batch(ROWS)]
    trainer = make_trainer(one_layer, 1, (1, 1, 1), {})
    assert remat_choice.most_memory(trainer, shapes) == program_cost.memory(trainer.compile(shapes[0])).total > 0


def test_offloading_wants_an_accelerator_and_unknown_policies_are_named():
    with pytest.raises(
        InputError, match="offload keeps activations in the memory of the host .* this is a CPU: take none"
    ):
        check_remat("offload", "cpu")
    check_remat("offload", "tpu")
    config = default_config()
    config.model.path = config.data.path = "-"
    config.train.remat = "attentive"
    with pytest.raises(InputError, match="config.train.remat.*auto, none, products"):
        check_config(config)


def test_offloading_on_a_cpu_is_refused_beside_what_is_wrong_with_the_data(one_layer, tmp_path):
    config = default_config()
    config.model.path, config.data.path, config.train.remat = str(one_layer), str(tmp_path / "gone.csv"), "offload"
    config.batch.rows = 8
    with pytest.raises(InputError) as caught:
        run(config, str(tmp_path / "run"))
    assert "train.remat=offload" in str(caught.value) and "gone.csv" in str(caught.value)


MORE = [
    pytest.param(name, marks=pytest.mark.evidence)
    for name in ("auto", "none", "dots", "projections", "attention", "full")
]


@pytest.mark.parametrize("remat", ["products", *MORE])
def test_a_run_goes_on_to_the_bit_whatever_its_layers_keep(one_layer, tmp_path, remat):
    config = default_config()
    config.model.update(path=str(one_layer), max_visual_tokens=16)
    config.data.path = str(PHOTOS / "photos.json")
    config.batch.update(rows=8, sequence_length=192)
    config.train.update(steps=4, remat=remat)
    config.checkpoint.update(every=2, keep=5)
    run(config, str(tmp_path / "whole"))
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    run(config, str(tmp_path / "again"))
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "again")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    whole, again = (open_model(str(tmp_path / name)).read() for name in ("whole", "again"))
    for path, array in whole.items():
        np.testing.assert_array_equal(array, again[path], err_msg=path)

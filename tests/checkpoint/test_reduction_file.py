"""How many visual tokens a model was trained to see travels with it, and may be said otherwise when it is loaded."""

import json
import shutil

import numpy as np
import pytest

import vlm_jax
from data_pipeline.training_run import run
from tests.consoles import Lines
from tests.tiny_assembled import save_assembled
from tests.tiny_models import PHOTOS, user
from vlm_jax.checkpoint import reduction_file
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError
from vlm_jax.processing.token_budget import ALL_TOKENS, TokenBudget, of_settings
from vlm_jax.training.config import check_config, default_config


def config_of(base, **model):
    config = default_config()
    config.model.update(path=str(base), max_visual_tokens=16, **model)
    config.data.path = str(PHOTOS / "photos.json")
    config.batch.update(rows=8, sequence_length=192)
    config.train.update(steps=4, remat="none")
    config.optimizer.learning_rate = 1e-3
    config.checkpoint.update(every=2, keep=5)
    return config


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "reduced"
    run(config_of(base, visual_tokens=0.4, token_reduction="divprune"), str(workdir))
    return workdir


def losses(workdir):
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_trains_on_fewer_tokens_and_its_checkpoint_says_so(base, trained):
    visual = [json.loads(line)["visual_tokens"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    model = vlm_jax.load(trained, dtype="float32")
    assert model.processor.budget == TokenBudget(0.4, "divprune")
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    few = (model.encode(messages).input_ids == model.config.image_token).sum()
    everything = vlm_jax.load(trained, dtype="float32", visual_tokens=1.0)
    many = (everything.encode(messages).input_ids == model.config.image_token).sum()
    assert few == int(0.4 * many + 0.5) and max(visual) > 0
    assert everything.processor.budget == ALL_TOKENS
    assert np.isfinite(model.logits(messages)).all()


def test_a_run_that_goes_on_comes_to_the_same_losses(base, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    result = run(config_of(base, visual_tokens=0.4, token_reduction="divprune"), str(tmp_path / "run"))
    assert result.trained and result.done == 4
    assert losses(tmp_path / "run")[-2:] == losses(trained)[-2:]
    weights = [open_model(str(folder)).read() for folder in (trained, tmp_path / "run")]
    for path, array in weights[0].items():
        np.testing.assert_array_equal(weights[1][path], array, err_msg=path)
    with pytest.raises(InputError, match="was started with model.token_reduction = 'divprune'"):
        run(config_of(base, visual_tokens=0.4, token_reduction="uniform"), str(tmp_path / "run"))


def metrics(workdir, name):
    return [json.loads(line)[name] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_schedule_takes_one_program_and_goes_on_exactly(base, tmp_path, capsys):
    """Trained on a share of the tokens and on all of them; used, from then on, with all."""
    schedule = {"token_schedule": "0.4: 0.5, 1.0: 0.5", "token_schedule_order": "drawn", "token_reduction": "divprune"}
    config = config_of(base, visual_tokens=1.0, **schedule)
    assert run(config, str(tmp_path / "run")).done == 4
    shown = "".join(capsys.readouterr())
    assert "visual tokens by schedule: 50% of the examples with 40%" in shown
    assert set(metrics(tmp_path / "run", "compiles")) == {1}
    assert vlm_jax.load(tmp_path / "run", dtype="float32").processor.budget.takes_all
    shutil.copytree(tmp_path / "run", tmp_path / "from_2")
    shutil.rmtree(tmp_path / "from_2" / "checkpoints" / "4")
    run(config, str(tmp_path / "from_2"))
    assert losses(tmp_path / "from_2")[-2:] == losses(tmp_path / "run")[2:]
    changed = config_of(base, **{**schedule, "token_schedule": "0.4: 0.9, 1.0: 0.1"})
    with pytest.raises(InputError, match="was started with model.token_schedule = '0.4: 0.5, 1.0: 0.5'"):
        run(changed, str(tmp_path / "run"))


def test_what_fits_with_some_of_its_tokens_alone_is_told_before_the_first_step(base, tmp_path):
    config = config_of(base, token_schedule="0.25: 0.9, 1.0: 0.1", token_reduction="uniform")
    config.batch.sequence_length = 100
    with pytest.raises(InputError, match=r"takes 1\d\d tokens.*raise batch.sequence_length"):
        run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_encoder_that_cannot_make_images_smaller_refuses_a_schedule_by_resize(tmp_path):
    config = config_of(save_assembled(tmp_path, "siglip"), token_schedule="0.25: 0.9, 1.0: 0.1")
    with pytest.raises(InputError, match="this encoder makes at least"):
        run(config, str(tmp_path / "run"))


def test_in_turn_the_first_steps_have_fewer_visual_tokens_and_a_longer_run_goes_on(base, tmp_path):
    config = config_of(base, token_schedule="0.25: 0.5, 1.0: 0.5", token_reduction="uniform")
    run(config, str(tmp_path / "run"))
    share = np.array(metrics(tmp_path / "run", "visual_tokens")) / metrics(tmp_path / "run", "tokens")
    assert share[:2].max() < share[2:].min(), share
    config.train.steps = 6
    assert run(config, str(tmp_path / "run")).done == 6
    later = np.array(metrics(tmp_path / "run", "visual_tokens")) / metrics(tmp_path / "run", "tokens")
    np.testing.assert_array_equal(later[:4], share)
    assert later[4:].min() > share[:2].max()


def test_an_export_says_it_in_a_file_of_its_own_and_an_import_knows_it(trained, tmp_path):
    vlm_jax.export(trained, tmp_path / "hf")
    assert json.loads((tmp_path / "hf" / reduction_file.FILE).read_text()) == {
        "visual_tokens": 0.4,
        "method": "divprune",
        "seed": 0,
    }
    model = vlm_jax.load(tmp_path / "hf", dtype="float32")
    assert model.processor.budget == TokenBudget(0.4, "divprune")
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    own = vlm_jax.load(trained, dtype="float32")
    np.testing.assert_allclose(model.logits(messages), own.logits(messages), atol=1e-5)
    vlm_jax.export(tmp_path / "hf", tmp_path / "orbax", "orbax")
    assert vlm_jax.load(tmp_path / "orbax", dtype="float32").processor.budget == TokenBudget(0.4, "divprune")


def test_where_images_are_made_smaller_others_get_the_limit_and_here_nothing_is_made_smaller_twice(base, tmp_path):
    shutil.copytree(base, tmp_path / "model")
    reduction_file.write(tmp_path / "model", TokenBudget(0.5, "resize"))
    notes = []
    vlm_jax.export(tmp_path / "model", tmp_path / "hf", say=notes.append)
    assert len(notes) == 1 and "50% of the visual tokens" in notes[0] and "no larger than the largest" in notes[0]
    before, after = (json.loads((tmp_path / name / "preprocessor_config.json").read_text()) for name in ("model", "hf"))
    assert after["max_pixels"] == before["max_pixels"] // 2
    messages = [user("What is the cat called?", str(PHOTOS / "chelsea.jpg"))]
    models = [vlm_jax.load(tmp_path / name, dtype="float32") for name in ("model", "hf")]
    ids = [model.encode(messages).input_ids.tolist() for model in models]
    assert ids[0] == ids[1] and models[1].processor.budget == TokenBudget(0.5, "resize")
    full = vlm_jax.load(tmp_path / "hf", dtype="float32", visual_tokens=1.0).encode(messages)
    many = (full.input_ids == full.image_token).sum()
    assert (np.array(ids[0]) == full.image_token).sum() <= many / 2


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ({"visual_tokens": 0.5, "method": "tomorrows", "seed": 0}, "'tomorrows': known are resize, random"),
        ({"visual_tokens": 0.0, "method": "divprune", "seed": 0}, "wanted a share above 0 and up to 1.0"),
        ({"visual_tokens": 0.5, "method": "divprune"}, "which this version does not know"),
        ({"visual_tokens": 0.5, "method": "divprune", "seed": 0, "layer": 3}, "which goes with fastv"),
        ({"visual_tokens": 0.5, "method": "fastv", "seed": 0, "layer": "3"}, "wanted a layer of the decoder"),
        ({"visual_tokens": 0.5, "method": "fastv", "seed": 0, "level": 3}, "which this version does not know"),
        ({"visual_tokens": 0.5, "method": "random", "seed": -1}, "has the seed -1"),
        ([0.5], "which this version does not know"),
    ],
)
def test_a_reduction_that_is_not_known_is_refused_with_the_way_out(content, line):
    with pytest.raises(InputError) as caught:
        reduction_file.of(content, "runs/a")
    assert line in str(caught.value) and "runs/a" in str(caught.value) and "visual_tokens=1.0" in str(caught.value)


def test_what_is_not_known_can_still_be_loaded_with_all_tokens_or_with_what_is_said(base, tmp_path):
    shutil.copytree(base, tmp_path / "model")
    unknown = {"visual_tokens": 0.5, "method": "tomorrows", "seed": 0}
    (tmp_path / "model" / reduction_file.FILE).write_text(json.dumps(unknown))
    with pytest.raises(InputError, match="tomorrows"):
        vlm_jax.load(tmp_path / "model")
    assert vlm_jax.load(tmp_path / "model", visual_tokens=1.0).processor.budget == ALL_TOKENS
    said_anew = vlm_jax.load(tmp_path / "model", visual_tokens=0.5, token_reduction="mmr")
    assert said_anew.processor.budget == TokenBudget(0.5, "mmr")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"visual_tokens": 0.5}, TokenBudget(0.5, "resize")),
        ({"visual_tokens": 7, "token_reduction": "mmr"}, TokenBudget(7, "mmr")),
        ({"visual_tokens": 9}, ALL_TOKENS),
        ({}, ALL_TOKENS),
    ],
)
def test_a_loaded_model_takes_what_is_asked_for(base, options, expected):
    model = vlm_jax.load(base, dtype="float32", **options)
    assert model.processor.budget == expected
    if options.get("visual_tokens") == 9:  # a limit on the size of images, as ever
        assert model.processor.images.token_range[1] == 9


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"visual_tokens": 0.0}, "wanted a share above 0"),
        ({"visual_tokens": 1.5}, "wanted a share above 0"),
        ({"visual_tokens": 0}, "visual_tokens is 0; wanted a share above 0"),
        ({"visual_tokens": 0, "token_reduction": "mmr"}, "a whole number of tokens an image from 1"),
        ({"visual_tokens": 0.5, "token_reduction": "divprun"}, "did you mean divprune?"),
        ({"token_reduction": "divprune"}, "needs visual_tokens too"),
        ({"visual_tokens": (4, 9), "token_reduction": "mmr"}, "give a share or a number with it"),
    ],
)
def test_what_cannot_be_is_one_line(base, options, line):
    with pytest.raises(InputError, match=line):
        vlm_jax.load(base, **options)


@pytest.mark.parametrize("value", [0.0, 1.5, -3.0])
def test_settings_of_a_run_are_checked(base, value):
    config = config_of(base)
    config.model.visual_tokens = value
    with pytest.raises(InputError, match=r"config\.model\.visual_tokens is"):
        check_config(config)
    config.model.update(visual_tokens=1.0, token_reduction="divprune")
    with pytest.raises(InputError, match="wanted resize where model.visual_tokens is 1.0"):
        check_config(config)
    config.model.update(visual_tokens=256.0, token_reduction="mmr")
    assert of_settings(config.model, 1) == TokenBudget(256, "mmr", 1)


def test_a_question_is_needed_where_the_question_decides(base):
    model = vlm_jax.load(base, dtype="float32", visual_tokens=0.5, token_reduction="cdpruner")
    image = {"type": "image", "image": str(PHOTOS / "chelsea.jpg")}
    with pytest.raises(InputError, match="turn 1: shows an image and asks nothing"):
        model.generate([{"role": "user", "content": [image]}])
    assert model.generate([user("What?", image["image"])], max_new_tokens=2) is not None


def test_an_encoder_of_fixed_views_is_not_resized_and_says_so_when_it_is_loaded(tmp_path):
    folder = save_assembled(tmp_path, "siglip")
    with pytest.raises(InputError, match="this encoder makes at least 16 tokens of any image; take a method"):
        vlm_jax.load(folder, visual_tokens=0.5)
    assert vlm_jax.load(folder, visual_tokens=0.5, token_reduction="uniform").processor.budget.chooses


def test_adapters_that_see_all_tokens_on_a_base_that_does_not_keep_to_that(base, tmp_path):
    shutil.copytree(base, tmp_path / "base")
    reduction_file.write(tmp_path / "base", TokenBudget(0.5, "divprune"))
    config, lines = config_of(tmp_path / "base"), Lines()
    config.lora.rank = 2
    config.train.steps = 1
    run(config, str(tmp_path / "run"), console=lines)
    assert any("was trained on fewer visual tokens" in line for line in lines.lines)
    vlm_jax.export(tmp_path / "run", tmp_path / "peft", "peft")
    for path in ("run", "peft"):
        assert vlm_jax.load(tmp_path / path, dtype="float32").processor.budget == ALL_TOKENS

"""A family that is added as docs/adding_a_model.md says works everywhere, and nothing else asks which family one is."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vlm_jax
from data_pipeline.training_run import run
from tests.tiny_models import PHOTOS, save_tiny, user
from vlm_jax.adapters.lora import Lora
from vlm_jax.checkpoint import beside_adapters, description, export, hf_folder, peft_folder
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.checkpoint.names import name_table
from vlm_jax.errors import InputError
from vlm_jax.models import families
from vlm_jax.models.config import DecoderConfig, VLMConfig
from vlm_jax.models.family import Family
from vlm_jax.models.layers import Linear, normalised
from vlm_jax.models.parameters import abstract_parameters
from vlm_jax.models.qwen_vl.shapes import VisionConfig
from vlm_jax.models.qwen_vl.tower import Merger
from vlm_jax.models.weight_names import LINEAR, weight_names
from vlm_jax.processing.image_processors.dynamic_resolution import DynamicResolution
from vlm_jax.training.config import default_config

ROOT = Path(__file__).resolve().parents[2]


# --- the family: thirty lines  ---------------------------------------------------------------------------------------


class ToyShapes(VisionConfig):
    model_family = "toy"


class ToyTower(nnx.Module):
    def __init__(self, config, *, std, dtype, rngs):
        self.config = config
        self.patches = Linear(config.patch_dim, config.hidden, bias=True, std=std, dtype=dtype, rngs=rngs)

    def __call__(self, patches, coords, image_ids, window_ids, *, dtype=jnp.float32, **_):
        return jax.nn.gelu(self.patches(normalised(self.config, patches).astype(dtype))), None


def read_toy(config, where):
    tower = ToyShapes(**config["tower"], global_blocks=())
    decoder = {**config["decoder"], "mrope_sections": tuple(config["decoder"]["mrope_sections"])}
    return VLMConfig(tower, DecoderConfig(**decoder), **config["tokens"])


def write_toy(config, dtype):
    tower = {key: getattr(config.vision, key) for key in ("depth", "hidden", "heads", "mlp", "out_hidden")}
    tokens = {key: getattr(config, key) for key in ("image_token", "vision_start_token", "vision_end_token")}
    return {"model_type": "toy_vl", "tower": tower, "decoder": dataclasses.asdict(config.decoder), "tokens": tokens}


def toy_names(config):
    merger = {"norm/scale": "merger.norm.weight"}
    merger |= {f"fc{n}/{ours}": f"merger.fc{n}.{theirs}" for n in (1, 2) for ours, theirs in LINEAR.items()}
    names = {f"vision/patches/{ours}": f"toy.patches.{theirs}" for ours, theirs in LINEAR.items()}
    return weight_names(names | {f"connector/{ours}": f"toy.{theirs}" for ours, theirs in merger.items()})


TOY = Family(
    model_types={"toy_vl": "Toy-VL"},
    tower=ToyTower,
    connectors={"merger": Merger},
    read_config=read_toy,
    write_config=write_toy,
    weight_names=toy_names,
    read_image_processor=lambda settings, config: DynamicResolution.from_json(settings),
    modules=("toy",),
)

# ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    families.register("toy", TOY)
    folder = tmp_path_factory.mktemp("toy")
    save_tiny(folder / "qwen", layers=2, depth=1, global_blocks=(0,), max_visual_tokens=16)
    qwen = description.read_config(folder / "qwen")
    shapes = {key: getattr(qwen.vision, key) for key in ("hidden", "heads", "mlp", "out_hidden")}
    config = dataclasses.replace(qwen, vision=ToyShapes(depth=1, global_blocks=(), **shapes))
    assets = folder / "assets"
    shutil.copytree(folder / "qwen", assets, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    (assets / "config.json").write_text(json.dumps(write_toy(config, "float32")))
    rng = np.random.default_rng(0)
    parameters = {
        path: (0.06 * rng.normal(size=leaf.shape)).astype(np.float32)
        for path, leaf in abstract_parameters(config).items()
    }
    hf_folder.write_folder(folder / "model", config, parameters, assets)
    yield folder / "model"
    del families.FAMILIES["toy"]


def test_a_toy_family_is_read_written_trained_and_asked(toy, tmp_path):
    model = vlm_jax.load(toy, dtype="float32")
    question = [user("What is it?", str(PHOTOS / "chelsea.jpg"))]
    before = model.logits(question)
    assert np.isfinite(before).all() and families.of(model.config) is TOY

    config = default_config()
    config.model.update(path=str(toy), max_visual_tokens=16)
    config.data.path = str(PHOTOS / "photos.json")
    config.batch.update(rows=8, sequence_length=256)
    config.train.update(steps=4, remat="none")
    config.optimizer.learning_rate = 3e-3
    result = run(config, str(tmp_path / "run"))
    assert result.done == 4 and not result.stopped
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0]

    export.export(tmp_path / "run", tmp_path / "hf")
    after = vlm_jax.load(tmp_path / "hf", dtype="float32").logits(question)
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_array_equal(vlm_jax.load(tmp_path / "run", dtype="float32").logits(question), after)
    trained = {path: np.asarray(array) for path, array in open_model(str(tmp_path / "run")).read().items()}
    written = {path: np.asarray(array) for path, array in open_model(str(tmp_path / "hf")).read().items()}
    assert trained.keys() == written.keys()
    for path, array in trained.items():
        np.testing.assert_array_equal(array, written[path], err_msg=path)


def test_what_a_tower_does_not_tell_is_not_weighed(toy):
    question = [user("What is it?", str(PHOTOS / "chelsea.jpg"))]
    fewer = vlm_jax.load(toy, dtype="float32", visual_tokens=0.5, token_reduction="divprune")
    assert np.isfinite(fewer.logits(question)).all()
    with pytest.raises(InputError, match="this model's tower does not tell it; take divprune"):
        vlm_jax.load(toy, dtype="float32", visual_tokens=0.5, token_reduction="visionzip").logits(question)


def test_a_connector_that_has_no_place_beside_adapters_is_refused_before_anything_is_written(toy, tmp_path):
    config = description.read_config(toy)
    connector = {"connector/fc1/bias": np.zeros(4, np.float32)}
    with pytest.raises(InputError, match=r"the connector was trained too, and a Toy-VL has no place.*--format=hf"):
        peft_folder.write(tmp_path / "out", config, Lora(2, 4.0), {}, base=str(toy), connector=connector)
    assert not (tmp_path / "out").exists()


def test_a_familys_own_connector_file_is_written_and_read_beside_adapters(toy, tmp_path, monkeypatch):
    config = description.read_config(toy)
    names = {entry.name: entry.name.removeprefix("toy.merger.") for entry in name_table(config)}
    own = {"connector_files": ("toy.pth",), "name_in_connector": lambda name: names.get(name)}
    monkeypatch.setitem(families.FAMILIES, "toy", dataclasses.replace(TOY, **own))
    adapters = {"decoder/layers/layer/attention/q_proj/adapter/a": np.ones((2, 128, 2), np.float32)}
    adapters |= {"decoder/layers/layer/attention/q_proj/adapter/b": np.ones((2, 2, 128), np.float32)}
    connector = {
        path: np.random.default_rng(len(path)).normal(size=leaf.shape).astype(np.float32)
        for path, leaf in abstract_parameters(config).items()
        if path.startswith("connector/")
    }
    peft_folder.write(tmp_path / "out", config, Lora(2, 4.0), adapters, base=str(toy), connector=connector)
    assert (tmp_path / "out" / "toy.pth").is_file()
    read = beside_adapters.read(tmp_path / "out", config)
    assert read.keys() == connector.keys()
    for path, array in connector.items():
        np.testing.assert_array_equal(read[path], array)
    monkeypatch.setitem(families.FAMILIES, "toy", TOY)  # whose connector is in no such file
    with pytest.raises(InputError, match="toy.pth: weights beside an adapter under a name that is not known"):
        beside_adapters.read(tmp_path / "out", config)


def test_a_name_or_a_model_type_that_is_taken_is_refused(toy):
    for name, family in (("toy", TOY), ("another", TOY)):
        with pytest.raises(ValueError, match="toy"):
            families.register(name, family)


def test_nothing_outside_a_family_asks_which_one_it_is():
    """Neither by its name, nor by the class of its shapes or of its image processor, nor by importing what is its own.

    A family's own are its folder, the presets of its sizes, and the putting together of models of the one family that
    is put together. CLIP and SigLIP with both halves (`contrastive`) are no models that answer, and made of the towers
    of that one.
    """
    branches = re.compile(
        r"isinstance\([^)]*(VisionConfig|EncoderConfig|FixedViews|DynamicResolution)|\.model_family\b|\.variant\b"
        r"|(config|model)\.assembled\b|model_type\b[^=]*(==|!=|\bin\b) |\.family ==|models\.(qwen_vl|qwen3_vl|llava)"
    )
    own = tuple(
        f"vlm_jax/models/{name}"
        for name in ("qwen_vl/", "qwen3_vl/", "llava/", "contrastive/", "families.py", "presets.py")
    )
    own += ("vlm_jax/models/config.py", "vlm_jax/models/family.py")
    own += tuple(f"vlm_jax/checkpoint/{name}.py" for name in ("assembly", "assembled_folder"))
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("vlm_jax", "data_pipeline", "scripts")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(own)
        for line in path.read_text(encoding="utf-8").splitlines()
        if branches.search(line)
    ]
    assert found == []

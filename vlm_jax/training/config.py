"""Every setting of a training run, with its default and what it means.

Files in `configs/` start from `default_config()` and change a few lines. Everything can be overridden on the command
line as `--config.a.b=value`.
"""

from typing import Any

from ml_collections import ConfigDict

from vlm_jax.errors import InputError

# The words that parts of the package know, once more: those modules load JAX, for which a mistyped setting and a sweep
# that only starts other programs should not wait. tests/test_configs.py sees to it that they are the same.
ATTENTION = ("reference", "chunked", "blockwise", "splash", "triton")
QUANTISED = ("nf4", "int8")
REMAT = ("none", "dots", "full")
OPTIMIZERS = ("adamw", "adafactor", "muon")


def default_config() -> ConfigDict:
    """Settings for one small machine; a setting that nothing reads does not stand here."""
    return ConfigDict(
        {
            "model": {
                "path": "",  # Hugging Face folder, or hub id such as Qwen/Qwen2.5-VL-3B-Instruct@revision
                "dtype": "auto",  # compute: float32 | bfloat16; auto: float32 on CPU, bfloat16 on an accelerator
                "min_visual_tokens": 4,  # a picture is scaled so that it takes between these many
                "max_visual_tokens": 256,  # the most that a picture takes: what is larger is scaled down
                # auto: splash on a TPU, triton on a GPU, else blockwise | one of these | chunked | reference
                "attention": "auto",
                "quantise": "none",  # none | nf4 | int8: how frozen kernels are held
            },
            # Instead of model.path: a model assembled from an encoder and a text model (docs/assembled.md). Its
            # connector starts fresh, drawn by train.seed. Empty strings follow the encoder's folder.
            "assemble": {
                "encoder": "",  # folder or hub id of a ViT, CLIP or SigLIP
                "decoder": "",  # folder or hub id of a Qwen2.5 text model
                "connector": "mlp",  # mlp: two layers with GELU between | linear
                "connector_weights": "",  # a .pth with a connector that was trained before
                "pictures": "",  # squash | crop | letterbox | anyres: tiles beside the whole picture
                "background": "mean",  # of letter-boxed pictures: mean (the encoder's mean colour) | black
                "tiles": 4,  # of a picture at most, in anyres
                "feature_layer": -1,  # whose hidden states are features: -1 the last layer's, -2 the one before …
                "final_norm": False,  # features go through the encoder's last norm
                "keep_class": False,  # the class token becomes a visual token
            },
            "lora": {
                "rank": 0,  # 0: no adapters
                "alpha": 16.0,  # what adapters add is scaled by alpha / rank
                "targets": "attention+mlp",  # of attention, mlp, vision, connector; or an expression over paths
                "rslora": False,  # scale by alpha / √rank
                "dropout": 0.0,  # share of the adapters' inputs left out while training
            },
            "data": {
                # A file or folder in any format that is known (docs/data.md), or several with commas between. Instead
                # of it, parts that are mixed: config.data.mixture = {"mine": {"path": "a.jsonl", "weight": 2.0}, …},
                # each with weight, seed, max_visual_tokens and, if need be, a format, image_root, share, answer,
                # columns and question of its own.
                "path": "",
                "mixture": {},  # parts that are mixed, instead of path
                "format": "auto",  # auto | records | llava | sharegpt | openai | table | parquet | … (docs/data.md)
                # Our names to those of the data: {"image": "img_path", "question": "q", "answer": "a"}.
                "columns": {},
                "question": "",  # asked where the data has no question: captions, pictures in folders by class
                "image_root": "",  # what relative picture paths start from; empty: the file's own folder
                "share": 1.0,  # of the records, chosen by their ids and train.seed; smaller ones lie within larger ones
                "answer": "majority",  # majority | first | sampled: what is trained on where several are given
                "on_error": "stop",  # stop: tell all faults before step 1 | drop: leave out, and note in ledger.jsonl
                "too_large": "error",  # error | shrink_images | truncate_text | drop: what fits no row
                "decode_check": True,  # decode every picture before the first step (False: only read headers)
                "shuffle": True,  # another order in each epoch
                "threads": 4,  # batches put together at the same time
                "workers": 0,  # processes that decode pictures; 0: the threads do
                "cache_mb": 512,  # decoded pictures kept in memory
            },
            "batch": {
                "rows": 1,  # rows a step, over all devices
                "accumulate": 1,  # parts of a step's rows that go through the model one after another
                "tokens": 2048,  # tokens a row
                "context": 0,  # tokens of the longest example, where it may be longer than a row; see buckets
                "buckets": 1,  # shapes of batch, 1 to 4: longer ones for longer examples; each is compiled once
                "patches": 0,  # patch slots a row; 0: in proportion to the data
                "supervised": 0,  # supervised positions a row; 0: in proportion to the data
            },
            "train": {
                # auto: adapters where lora.rank is set, else full | full, frozen_vision, connector, adapter, some with
                # + between | a regular expression over parameter paths
                "what": "auto",
                # A first stage in which something else trains: the connector before the rest, for example.
                "first": {
                    "share": 0.0,  # of the steps; 0: no such stage
                    "what": "connector",  # as `what`
                    "learning_rate": 1e-3,  # its peak, with warm-up and decay of its own
                },
                "epochs": 0,  # how often all of the data is seen, or else the number of steps; once where both are 0
                "steps": 0,  # training steps in all; 0: as many as the epochs take
                "seed": 0,  # of what starts fresh, of the order of the data, and of dropout
                "skip_at_most": 3,  # steps in a row whose loss or gradient is not finite, before the run stops
                "remat": "full",  # what layers recompute in the backward pass: none | dots | full
            },
            "optimizer": {
                "name": "adamw",  # adamw | adafactor, with little state | muon, which learns fast from nothing
                "learning_rate": 1e-5,  # its peak, after warm-up
                # The learning rate of a part of the model, as a multiple.
                "scales": {"vision": 1.0, "connector": 1.0, "decoder": 1.0, "adapter": 1.0},
                "warmup": 0.03,  # share of the steps
                "final": 0.0,  # last learning rate, as a share of the peak
                "weight_decay": 0.0,  # decoupled, of matrices
                "clip_norm": 1.0,  # gradients of a larger norm over all parameters are scaled down to it
                "b1": 0.9,  # decay of the first moment
                "b2": 0.95,  # decay of the second moment
                "eps": 1e-8,  # added to the root of the second moment
            },
            "mesh": {"data": -1, "fsdp": 1, "tensor": 1},  # -1: the devices that are left
            "checkpoint": {
                "every": 500,  # steps; the last step is always saved
                "keep": 2,  # newest checkpoints kept
                "best": 1,  # kept besides: those of the lowest loss, on held-out examples where there are any
            },
            # Examples that are never trained on, and after how many steps the loss on them is taken (0: with a save).
            "held_out": {"path": "", "every": 0},
            # Every so many steps (0: never) the model answers a few held-out examples, or its own: samples/ shows them.
            "samples": {"every": 0, "count": 4, "max_new_tokens": 64},
            "log": {
                "every": 10,  # steps between lines where the console is no terminal
                "profile": 0,  # the step from which three are traced for XLA's profiler; 0: none
            },
        }
    )


def check_config(config: ConfigDict) -> None:
    """Raises InputError with every setting that is out of range."""
    faults = []

    def want(good: bool, key: str, wanted: str) -> None:
        if not good:
            section, name = key.split(".")
            faults.append(f"config.{key} is {config[section][name]!r}; wanted {wanted}")

    model, data, _batch, train = config.model, config.data, config.batch, config.train
    parts = config.assemble
    if bool(parts.encoder) != bool(parts.decoder):
        faults.append("config.assemble names an encoder and a decoder, or neither")
    want(
        bool(model.path) != bool(parts.encoder or parts.decoder),
        "model.path",
        "a Hugging Face folder or a hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or config.assemble instead",
    )
    want(parts.tiles >= 2, "assemble.tiles", "at least 2")
    want(
        bool(data.path) != bool(data.mixture),
        "data.path",
        "a data file (LLaVA JSON, records JSONL, a table with image, question, answer, …), or data.mixture instead",
    )
    want(0 < data.share <= 1, "data.share", "a share above 0, up to 1")
    want(data.answer in ("majority", "first", "sampled"), "data.answer", "majority, first or sampled")
    want(data.on_error in ("stop", "drop"), "data.on_error", "stop or drop")
    want(
        data.too_large in ("error", "shrink_images", "truncate_text", "drop"),
        "data.too_large",
        "error, shrink_images, truncate_text or drop",
    )
    want(1 <= config.batch.buckets <= 4, "batch.buckets", "1 to 4")
    want(not config.batch.context or config.batch.buckets > 1, "batch.context", "0 where batch.buckets is 1")
    want(
        config.batch.context == 0 or config.batch.context >= config.batch.tokens,
        "batch.context",
        "0 or at least batch.tokens",
    )
    want(model.dtype in ("auto", "float32", "bfloat16"), "model.dtype", "auto, float32 or bfloat16")
    want(model.attention in ("auto", *ATTENTION), "model.attention", f"auto, {' or '.join(ATTENTION)}")
    want(1 <= model.min_visual_tokens, "model.min_visual_tokens", "at least 1")
    want(model.min_visual_tokens <= model.max_visual_tokens, "model.max_visual_tokens", "at least min_visual_tokens")
    want(model.quantise in ("none", *QUANTISED), "model.quantise", f"none, {' or '.join(QUANTISED)}")
    want(config.lora.rank >= 0, "lora.rank", "0 or more")
    want(config.lora.alpha > 0, "lora.alpha", "above 0")
    want(0 <= config.lora.dropout < 1, "lora.dropout", "a share from 0 to below 1")
    want(config.batch.accumulate >= 1, "batch.accumulate", "at least 1")
    want(config.batch.rows % max(1, config.batch.accumulate) == 0, "batch.accumulate", "a divisor of batch.rows")
    want(train.remat in REMAT, "train.remat", ", ".join(REMAT))
    for key in ("batch.rows", "batch.tokens", "checkpoint.every", "checkpoint.keep", "log.every", "data.threads"):
        section, name = key.split(".")
        want(config[section][name] >= 1, key, "at least 1")
    want(config.samples.count >= 1, "samples.count", "at least 1")
    want(config.samples.max_new_tokens >= 1, "samples.max_new_tokens", "at least 1")
    zero = ("checkpoint.best", "held_out.every", "samples.every", "log.profile")
    sizes = ("batch.patches", "batch.supervised", "batch.context", "train.steps", "data.cache_mb", "data.workers")
    for key in (*zero, *sizes):
        section, name = key.split(".")
        want(config[section][name] >= 0, key, "0 or more")
    want(train.epochs >= 0, "train.epochs", "0 or more")
    if train.steps > 0 and train.epochs > 0:
        faults.append(
            f"config.train.steps is {train.steps} and config.train.epochs is {train.epochs}: only one of them counts; "
            "set the other to 0"
        )
    for group, scale in config.optimizer.scales.items():
        if not scale > 0:
            faults.append(f"config.optimizer.scales.{group} is {scale!r}; wanted above 0 (train.what freezes)")
    if not 0 <= train.first.share < 1:
        faults.append(f"config.train.first.share is {train.first.share!r}; wanted a share from 0 to below 1")
    if not train.first.learning_rate > 0:
        faults.append(f"config.train.first.learning_rate is {train.first.learning_rate!r}; wanted above 0")
    want(config.train.skip_at_most >= 1, "train.skip_at_most", "at least 1")
    want(config.optimizer.name in OPTIMIZERS, "optimizer.name", " or ".join(OPTIMIZERS))
    want(config.optimizer.learning_rate > 0, "optimizer.learning_rate", "above 0")
    want(0 <= config.optimizer.warmup <= 1, "optimizer.warmup", "a share between 0 and 1")
    for key in ("optimizer.b1", "optimizer.b2"):
        want(0 <= config.optimizer[key.split(".")[1]] < 1, key, "a number from 0 to below 1")
    for key in ("optimizer.weight_decay", "optimizer.final", "train.seed"):
        section, name = key.split(".")
        want(config[section][name] >= 0, key, "0 or more")
    want(config.optimizer.clip_norm > 0, "optimizer.clip_norm", "above 0")
    if faults:
        raise InputError(faults)


def epochs_of(train: ConfigDict) -> int:
    """How often all of the data is seen by a run whose length is not given in steps."""
    return 0 if train.steps else train.epochs or 1


def lasting_settings(config: ConfigDict) -> dict[str, Any]:
    """{key: value} of the settings that change what is computed: a run goes on only with the same ones."""
    kept = [
        f"{section}.{key}" for section in ("batch", "train", "optimizer", "lora", "assemble") for key in config[section]
    ]
    kept = [key for key in kept if key not in ("train.remat", "train.skip_at_most")]
    kept += [
        "model.path",
        "model.dtype",
        "model.attention",
        "model.quantise",
        "model.min_visual_tokens",
        "model.max_visual_tokens",
        "data.share",
        "data.shuffle",
        "data.answer",
        "data.columns",
        "data.question",
        "data.on_error",
        "data.too_large",
    ]
    values = {}
    for key in kept:
        section, name = key.split(".")
        value = config[section][name]
        values[key] = value.to_dict() if isinstance(value, ConfigDict) else value
    if config.data.on_error == "drop":
        values["data.decode_check"] = config.data.decode_check  # it decides what is left out
    return values

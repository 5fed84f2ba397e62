"""Every setting of a training run, with its default and what it means.

Files in `configs/` start from `default_config()` and change a few lines. Everything can be overridden on the command
line as `--config.a.b=value`.
"""

import difflib
from collections.abc import Sequence

from ml_collections import ConfigDict

from vlm_jax.errors import InputError, nearest
from vlm_jax.processing import token_budget, token_schedule

# The words that parts of the package know, once more: those modules load JAX, for which a mistyped setting and a sweep
# that only starts other programs should not wait. tests/test_configs.py sees to it that they are the same.
ATTENTION = ("reference", "chunked", "blockwise", "splash", "triton")
QUANTISED = ("nf4", "int8")
REMAT = ("auto", "none", "products", "projections", "attention", "full", "dots", "offload")
OPTIMIZERS = ("adamw", "adafactor", "muon")
TRACKERS = ("wandb", "mlflow")


def default_config() -> ConfigDict:
    """Settings for one small machine; a setting that nothing reads does not stand here.

    One long function, since it is the page on which a person looks up what there is.
    """
    return ConfigDict(
        {
            "model": {
                "path": "",  # Hugging Face folder, or hub id such as Qwen/Qwen2.5-VL-3B-Instruct@revision
                "dtype": "auto",  # compute: float32 | bfloat16; auto: float32 on CPU, bfloat16 on an accelerator
                "min_visual_tokens": 4,  # an image is scaled so that it takes between these many
                "max_visual_tokens": 256,  # the most that an image takes: what is larger is scaled down
                # What of them the decoder sees (docs/token_reduction.md): a share above 0 and up to 1.0, or a number of
                # tokens an image, from 2. Rows are packed at that length.
                "visual_tokens": 1.0,
                # How: resize makes the image smaller | random | uniform | pool | pool_learned | divprune | mmr |
                # mmr_learned | cdpruner | visionzip | fastv | pyramiddrop, which leave tokens out within the decoder
                "token_reduction": "resize",
                "token_reduction_layer": 0,  # fastv: decoder layers that see all tokens; 0: 2, as published
                # While training, instead of visual_tokens: several, each with its share of the examples, such as
                # "0.25: 0.9, 1.0: 0.1". What is trained is then used with visual_tokens. "": no schedule.
                "token_schedule": "",
                "token_schedule_order": "in_turn",  # in_turn, one after the other | drawn, for each example
                # auto: splash on a TPU, triton on a GPU, else blockwise | one of these | chunked | reference
                "attention": "auto",
                "quantise": "none",  # none | nf4 | int8: how frozen kernels are held
            },
            # Instead of model.path: a model assembled from an encoder and a text model (docs/assembled.md). Its
            # connector starts fresh, drawn by train.seed. Empty strings follow the encoder's folder.
            "assemble": {
                "encoder": "",  # folder or hub id of a ViT, CLIP or SigLIP
                "decoder": "",  # folder or hub id of a text model of Qwen2.5 or Qwen3
                "connector": "mlp",  # mlp: two layers with GELU between | linear
                "connector_weights": "",  # a .pth with a connector that was trained before
                "image_mode": "",  # squash | crop | letterbox | anyres: tiles beside the whole image
                "background": "mean",  # of letter-boxed images: mean (the encoder's mean colour) | black
                "tiles": 4,  # of an image at most, in anyres
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
                # columns, question, template and suffix of its own.
                "path": "",
                "mixture": {},  # parts that are mixed, instead of path
                "format": "auto",  # auto | records | llava | sharegpt | openai | table | parquet | … (docs/data.md)
                # Our names to those of the data: {"image": "img_path", "question": "q", "answer": "a"}.
                "columns": {},
                "question": "",  # asked where the data has no question: captions, images in folders by class
                # Words around each question: {question}, and {context} where a record's is shown, such as
                # "{context}\n\n{question}". "": the question alone (docs/benchmarks.md).
                "template": "",
                "suffix": "",  # after each question: "\nAnswer the question using a single word or phrase."
                "image_root": "",  # what relative image paths start from; empty: the file's own folder
                "share": 1.0,  # of the records, chosen by their ids and train.seed; smaller ones lie within larger ones
                "answer": "majority",  # majority | first | sampled: what is trained on where several are given
                "on_error": "stop",  # stop: tell all errors before step 1 | drop: leave out, and note in ledger.jsonl
                "too_large": "error",  # error | shrink_images | truncate_text | drop: what fits no row
                # Every image is decoded before the first step where there are no more examples than this. Of more, only
                # the headers are read then, and each is decoded as training comes to it. 0: never before.
                "decode_check_up_to": 20_000,
                "shuffle": True,  # another order in each epoch
                "threads": 4,  # batches put together at the same time
                "workers": 0,  # processes that decode images; 0: the threads do
                "cache_mb": 512,  # decoded images kept in memory
            },
            "batch": {
                "rows": 1,  # rows a step, over all devices
                "gradient_accumulation": 1,  # parts of a step's rows that go through the model one after another
                "sequence_length": 2048,  # tokens a row
                "max_sequence_length": 0,  # of an example, where it may be longer than a row; see buckets
                "buckets": 1,  # shapes of batch, 1 to 4: longer ones for longer examples; each is compiled once
                "patches": 0,  # patch slots a row; 0: in proportion to the data
                "supervised": 0,  # supervised positions a row; 0: in proportion to the data
            },
            "train": {
                # auto: adapters where lora.rank is set, else full | full, frozen_vision, connector, adapter, some with
                # + between | a regular expression over parameter paths
                "trainable": "auto",
                # A first stage in which something else trains: the connector before the rest, for example.
                "first": {
                    "share": 0.0,  # of the steps; 0: no such stage
                    "trainable": "connector",  # as `trainable`
                    "learning_rate": 1e-3,  # its peak, with warm-up and decay of its own
                },
                "epochs": 0,  # how often all of the data is seen, or else the number of steps; once where both are 0
                "steps": 0,  # training steps in all; 0: as many as the epochs take
                "seed": 0,  # of what starts fresh, of the order of the data, and of dropout
                "max_skipped_steps": 3,  # steps in a row whose loss or gradient is not finite, before the run stops
                # What is not computed again for the backward pass: none (all is kept) | products | projections |
                # attention | full (nothing is kept) | auto: the first of these that fits | dots | offload (docs/tpu.md)
                "remat": "full",
            },
            "optimizer": {
                "name": "adamw",  # adamw | adafactor, with little state | muon, which learns fast from nothing
                "learning_rate": 1e-5,  # its peak, after warm-up
                # The learning rate of a part of the model, as a multiple.
                "lr_multipliers": {"vision": 1.0, "connector": 1.0, "decoder": 1.0, "adapter": 1.0},
                "warmup_fraction": 0.03,  # of the steps
                "end_lr_fraction": 0.0,  # the last learning rate, as a fraction of the peak
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
                "best": 1,  # kept besides: those that are best on validation examples; without any, of the lowest loss
            },
            "validation": {
                "path": "",  # examples that are never trained on
                "every": 0,  # steps after which the loss on them is taken; 0: with a save
                "patience": 0,  # so many times in a row without being better end the run early; 0: never
                "metric": "",  # of the model's own answers, as docs/evaluation.md names them; "": the loss alone tells
                "questions": 200,  # answered for it, spread evenly over the examples; 0: all
                "max_new_tokens": 64,  # an answer to them may have
            },
            # Every so many steps (0: never) the model answers a few validation examples, or its own: see samples/.
            "samples": {"every": 0, "count": 4, "max_new_tokens": 64},
            "log": {
                "every": 10,  # steps between lines where the console is no terminal
                "profile": 0,  # the step from which three are traced for XLA's profiler; 0: none
                "tracker": "",  # "": none | wandb | mlflow, which gets what metrics.jsonl holds (docs/training.md)
                "project": "",  # of wandb, or experiment of mlflow; "": as WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME say
                "run_name": "",  # in the tracker; "": as the run folder is called
            },
        }
    )


RENAMED = {
    "assemble.images": "assemble.image_mode",
    "batch.accumulate": "batch.gradient_accumulation",
    "batch.context": "batch.max_sequence_length",
    "batch.tokens": "batch.sequence_length",
    "data.decode_check": "data.decode_check_up_to",
    "held_out": "validation",
    "optimizer.final": "optimizer.end_lr_fraction",
    "optimizer.scales": "optimizer.lr_multipliers",
    "optimizer.warmup": "optimizer.warmup_fraction",
    "train.first.what": "train.first.trainable",
    "train.skip_at_most": "train.max_skipped_steps",
    "train.what": "train.trainable",
}
"""Settings by the names that earlier versions had, and their names now: reported where one is given, and understood in
checkpoints of earlier versions."""
_OPEN = ("data.mixture", "data.columns")
"""Mappings whose keys are a person's."""


def renamed(key: str) -> str | None:
    """The name that a setting has now, by its earlier one; None where it had no other."""
    old = next((old for old in RENAMED if key == old or key.startswith(f"{old}.")), None)
    return None if old is None else RENAMED[old] + key.removeprefix(old)


def named_now(name: str) -> str:
    """What an error may add where an earlier version had a setting or a group called `name`, whatever it was in."""
    pairs = [f"{old} is {now} now" for old, now in RENAMED.items() if name in (old, old.rpartition(".")[2])]
    return f" ({', '.join(pairs)})" if pairs else ""


def check_config(config: ConfigDict) -> None:
    """Raises InputError with every setting that is unknown, missing, or out of range."""
    if errors := _unknown(config, default_config()):
        raise InputError(errors)
    check = _Check(config)
    for settings in (_check_model, _check_data, _check_batch, _check_train, _check_optimizer, _check_the_rest):
        settings(config, check)
    if check.errors:
        raise InputError(check.errors)


def _unknown(config: ConfigDict, known: ConfigDict, above: str = "") -> list[str]:
    """A config file may have set what does not exist, or left something out: it is ordinary Python."""
    errors = [
        f"config.{above}{key}: no such setting{_instead(above, key, known)}" for key in config if key not in known
    ]
    errors += [f"config.{above}{key}: is missing; start from default_config()" for key in known if key not in config]
    for key in known:
        if key in config and isinstance(known[key], ConfigDict) and above + key not in _OPEN:
            if isinstance(config[key], ConfigDict):
                errors += _unknown(config[key], known[key], f"{above}{key}.")
            else:
                errors.append(f"config.{above}{key} is {config[key]!r}; it is a group of settings")
    return errors


def _instead(above: str, key: str, known: ConfigDict) -> str:
    """What an unknown setting of a group may have been meant for."""
    if now := renamed(above + key):
        return f"; it is config.{now} now"
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"; did you mean config.{above}{near[0]}?" if near else ""


class _Check:
    """Gathers what is out of range, in one form."""

    def __init__(self, config: ConfigDict):
        self._config = config
        self.errors: list[str] = []

    def value(self, key: str):
        value = self._config
        for name in key.split("."):
            value = value[name]
        return value

    def want(self, good: bool, key: str, expected: str) -> None:
        if not good:
            self.errors.append(f"config.{key} is {self.value(key)!r}; wanted {expected}")

    def at_least(self, least: int, *keys: str) -> None:
        for key in keys:
            self.want(self.value(key) >= least, key, "at least 1" if least else "0 or more")

    def above_0(self, *keys: str) -> None:
        for key in keys:
            self.want(self.value(key) > 0, key, "above 0")

    def share(self, key: str, *, below_1: bool = False) -> None:
        value = self.value(key)
        self.want(
            0 <= value < 1 if below_1 else 0 <= value <= 1,
            key,
            "a share from 0 to below 1" if below_1 else "a share between 0 and 1",
        )

    def one_of(self, key: str, known: Sequence[str]) -> None:
        self.want(self.value(key) in known, key, f"{', '.join(known[:-1])} or {known[-1]}")


def _check_model(config: ConfigDict, check: _Check) -> None:
    model, parts = config.model, config.assemble
    if bool(parts.encoder) != bool(parts.decoder):
        check.errors.append("config.assemble names an encoder and a decoder, or neither")
    check.want(
        bool(model.path) != bool(parts.encoder or parts.decoder),
        "model.path",
        "a Hugging Face folder or a hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or config.assemble instead",
    )
    check.want(parts.tiles >= 2, "assemble.tiles", "at least 2")
    check.one_of("model.dtype", ("auto", "float32", "bfloat16"))
    check.one_of("model.attention", ("auto", *ATTENTION))
    check.one_of("model.quantise", ("none", *QUANTISED))
    check.at_least(1, "model.min_visual_tokens")
    check.want(
        model.min_visual_tokens <= model.max_visual_tokens, "model.max_visual_tokens", "at least min_visual_tokens"
    )
    share = model.visual_tokens
    check.want(
        0 < share <= 1 or (share > 1 and float(share).is_integer()),
        "model.visual_tokens",
        "a share above 0 and up to 1.0, or a whole number of tokens an image",
    )
    check.one_of("model.token_reduction", token_budget.METHODS)
    check.at_least(0, "model.token_reduction_layer")
    check.want(
        model.token_reduction_layer <= 0 or model.token_reduction == token_budget.FASTV,
        "model.token_reduction_layer",
        f"0 where model.token_reduction is not {token_budget.FASTV}",
    )
    check.want(
        share != 1 or model.token_reduction == "resize" or bool(model.token_schedule),
        "model.token_reduction",
        "resize where model.visual_tokens is 1.0, all of them: a method needs a share such as 0.25",
    )
    check.want(
        bool(model.token_schedule) or model.token_schedule_order == token_schedule.IN_TURN,
        "model.token_schedule_order",
        f"{token_schedule.IN_TURN} where there is no model.token_schedule",
    )
    if model.token_schedule:
        try:
            entries = token_schedule.parse(model.token_schedule)
            check.want(
                any(tokens != 1 for tokens, _ in entries) or share != 1 or model.token_reduction == "resize",
                "model.token_reduction",
                "resize where every budget of model.token_schedule is 1.0: a method needs a share such as 0.25",
            )
        except InputError as error:
            check.errors += [f"config.model.token_schedule: {line}" for line in error.lines]
    check.one_of("model.token_schedule_order", token_schedule.ORDERS)
    check.at_least(0, "lora.rank")
    check.above_0("lora.alpha")
    check.share("lora.dropout", below_1=True)


def _check_data(config: ConfigDict, check: _Check) -> None:
    data = config.data
    check.want(
        bool(data.path) != bool(data.mixture),
        "data.path",
        "a data file (LLaVA JSON, records JSONL, a table with image, question, answer, …), or data.mixture instead",
    )
    check.want(0 < data.share <= 1, "data.share", "a share above 0, up to 1")
    check.one_of("data.answer", ("majority", "first", "sampled"))
    check.one_of("data.on_error", ("stop", "drop"))
    check.one_of("data.too_large", ("error", "shrink_images", "truncate_text", "drop"))
    check.at_least(1, "data.threads")
    check.at_least(0, "data.cache_mb", "data.workers", "data.decode_check_up_to")


def _check_batch(config: ConfigDict, check: _Check) -> None:
    batch = config.batch
    check.at_least(1, "batch.rows", "batch.sequence_length", "batch.gradient_accumulation")
    check.at_least(0, "batch.patches", "batch.supervised", "batch.max_sequence_length")
    check.want(1 <= batch.buckets <= 4, "batch.buckets", "1 to 4")
    check.want(
        not batch.max_sequence_length or batch.buckets > 1, "batch.max_sequence_length", "0 where batch.buckets is 1"
    )
    check.want(
        batch.max_sequence_length == 0 or batch.max_sequence_length >= batch.sequence_length,
        "batch.max_sequence_length",
        "0 or at least batch.sequence_length",
    )
    parts = max(1, batch.gradient_accumulation)
    check.want(batch.rows % parts == 0, "batch.gradient_accumulation", "a divisor of batch.rows")


def _check_train(config: ConfigDict, check: _Check) -> None:
    train = config.train
    check.one_of("train.remat", REMAT)
    check.at_least(0, "train.steps", "train.epochs", "train.seed")
    check.at_least(1, "train.max_skipped_steps")
    if train.steps > 0 and train.epochs > 0:
        check.errors.append(
            f"config.train.steps is {train.steps} and config.train.epochs is {train.epochs}: only one of them counts; "
            "set the other to 0"
        )
    check.share("train.first.share", below_1=True)
    check.above_0("train.first.learning_rate")


def _check_optimizer(config: ConfigDict, check: _Check) -> None:
    check.one_of("optimizer.name", OPTIMIZERS)
    check.above_0("optimizer.learning_rate", "optimizer.clip_norm")
    check.share("optimizer.warmup_fraction")
    for key in ("optimizer.b1", "optimizer.b2"):
        check.want(0 <= check.value(key) < 1, key, "a number from 0 to below 1")
    check.at_least(0, "optimizer.weight_decay", "optimizer.end_lr_fraction")
    for part in config.optimizer.lr_multipliers:
        key = f"optimizer.lr_multipliers.{part}"
        check.want(check.value(key) > 0, key, "above 0 (train.trainable freezes)")


def _check_the_rest(config: ConfigDict, check: _Check) -> None:
    check.at_least(1, "checkpoint.every", "checkpoint.keep", "log.every", "samples.count", "samples.max_new_tokens")
    validation = config.validation
    check.want(bool(validation.path) or not validation.patience, "validation.patience", "0 without validation.path")
    check.want(bool(validation.path) or not validation.metric, "validation.metric", "empty without validation.path")
    check.at_least(1, "validation.max_new_tokens")
    check.at_least(0, "validation.questions", "validation.patience", "validation.every")
    check.at_least(0, "checkpoint.best", "samples.every", "log.profile")
    if (tracker := config.log.tracker) not in ("", *TRACKERS):
        check.want(False, "log.tracker", f"wandb, mlflow or empty; {nearest(tracker, TRACKERS)}")


def epochs_of(train: ConfigDict) -> int:
    """How often all of the data is seen by a run whose length is not given in steps."""
    return 0 if train.steps else train.epochs or 1

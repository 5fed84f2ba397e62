"""Floating-point operations that a training step needs, and the share of a device's peak that it reaches (MFU).

Model FLOPs (Chowdhery et al. 2022, appendix B): what the mathematics asks for, whatever the program does. Padding
counts nothing, nor does what is computed a second time to save memory. A product with N weights takes 2 N a token
forwards; 2 N more where its weights train; 2 N more where a gradient has to pass through it to something that trains
before it. So a part that trains takes 6 N, a frozen decoder under adapters 4 N, and a frozen tower in front of it 2 N:
nothing before it learns, and nothing runs backwards through it. Scores and mixing of attention have no weights: 4 · d
for each pair of a query and a key that it may see, three times that with a backward pass. Of causal pairs, half count.
A look-up in the embedding costs nothing; the output layer works on supervised positions alone. Tokens that are left out
within the decoder count in the layers that see them.
"""

import dataclasses
import itertools
from collections.abc import Collection

import numpy as np
from jaxtyping import Int

from vlm_jax.adapters.lora import is_adapter, is_seed
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.parameters import abstract_parameters, is_unused
from vlm_jax.models.token_reduction.learned import PREFIX
from vlm_jax.processing.rows import Batch
from vlm_jax.processing.token_budget import cut_layers


@dataclasses.dataclass(frozen=True)
class Work:
    """How much a step has to compute, padding left out. Arrays may be counts of one example, a row or a whole batch."""

    tokens: Int[np.ndarray, " examples"]
    """Tokens of each example."""
    images: Int[np.ndarray, " images"]
    """Patches of each image."""
    windows: Int[np.ndarray, " windows"]
    """Patches of each attention window."""
    supervised: int
    above: tuple[Int[np.ndarray, " examples"], ...] = ()
    """Tokens of each example that are left above each cut within the decoder."""
    shares: tuple[float, ...] = (1.0,)
    """What part of the decoder's layers all tokens go through, and then those above each cut."""


def work_of(batch: Batch, block_slots: int, layers: int = 0) -> Work:
    """The work of a packed batch, from the host's arrays.

    Args:
      block_slots: patch slots of one attention block, within which window ids count (`VisionConfig.block_slots`).
      layers: of the decoder, where tokens are left out within it.
    """
    ends = (0, *(cut_layers(batch.method, batch.layer, layers) if batch.above else ()), layers or 1)
    window_ids = batch.window_ids.reshape(-1, block_slots)
    # The slots that fill a block up carry no image, whatever window they lie in.
    window_ids = np.where(batch.image_ids.reshape(-1, block_slots) > 0, window_ids, 0)
    return Work(
        tokens=_counts(batch.segment_ids),
        images=_counts(batch.image_ids),
        windows=_counts(window_ids),
        supervised=int(np.count_nonzero(batch.loss_weights)),
        above=tuple(_left(batch, cut) for cut in range(len(batch.above))),
        shares=tuple((stop - start) / ends[-1] for start, stop in itertools.pairwise(ends)),
    )


def _left(batch: Batch, cut: int) -> Int[np.ndarray, " examples"]:
    """Tokens of each example that are left above a cut."""
    images, width = batch.cut_images, int(batch.cut_images.max()) + 1
    rows = np.arange(len(images))[:, None]
    counts = np.bincount((rows * width + images).ravel(), minlength=len(images) * width)[rows * width + images]
    # Each token as the part of it that stays: so many of those of its image.
    parts = np.where(images > 0, np.minimum(batch.cut_keep[:, cut] / np.maximum(counts, 1), 1), 1.0)
    ids, width = batch.segment_ids, int(batch.segment_ids.max()) + 1
    found = np.bincount((rows * width + ids).ravel(), parts.ravel(), len(ids) * width).reshape(len(ids), width)
    return np.round(found[:, 1:][found[:, 1:] > 0]).astype(np.int64)


def _counts(ids: Int[np.ndarray, "rows n"]) -> Int[np.ndarray, " groups"]:
    """How often each id above 0 stands in its row."""
    if not ids.size:
        return np.zeros(0, np.int64)
    width = int(ids.max()) + 1
    flat = (np.arange(len(ids))[:, None] * width + ids).ravel()
    counts = np.bincount(flat, minlength=len(ids) * width).reshape(len(ids), width)[:, 1:].ravel()
    return counts[counts > 0]


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of a step of one model and one choice of what trains; made once (`step_flops`), cheap to ask.

    Each field is for forward and backward together.
    """

    token: float
    """The decoder's products with weights, a token."""
    patch: float
    """The tower's, a patch; the connector's are shared among the patches that it merges."""
    supervised: float
    """The output layer's, a supervised position."""
    decoder_pair: float
    """Attention of all decoder layers, a pair of tokens that see each other."""
    window_pair: float
    """Attention of all windowed blocks, a pair of patches of one window."""
    image_pair: float
    """Attention of all global blocks, a pair of patches of one image."""
    block_slots: int
    layers: int
    """Of the decoder."""

    def parts(self, work: Work) -> dict[str, float]:
        """FLOPs by part of the model."""
        ranges = list(zip(work.shares, (work.tokens, *work.above), strict=True))
        return {
            "decoder": self.token * sum(share * float(tokens.sum()) for share, tokens in ranges),
            "decoder attention": self.decoder_pair * sum(share * _squares(tokens) for share, tokens in ranges) / 2,
            "vision": self.patch * float(work.images.sum()),
            "vision attention": self.window_pair * _squares(work.windows) + self.image_pair * _squares(work.images),
            "output": self.supervised * work.supervised,
        }

    def of(self, work: Work) -> float:
        return sum(self.parts(work).values())

    def of_batch(self, batch: Batch) -> float:
        """FLOPs of a step on a packed batch, from the host's arrays."""
        return self.of(work_of(batch, self.block_slots, self.layers))


def _squares(counts: Int[np.ndarray, " n"]) -> float:
    return float(np.square(counts, dtype=np.float64).sum())


def gradients_pass(trainable: Collection[str]) -> dict[str, bool]:
    """Whether a gradient passes through each part of a model: something in it or before it trains."""
    learns = {part: any(path.startswith(part) for path in trainable) for part in ("vision", "connector", "decoder")}
    passes = {"vision": learns["vision"]}
    passes["connector"] = passes["vision"] or learns["connector"]
    passes["decoder"] = passes["connector"] or "embedding" in trainable or learns["decoder"]
    return passes


def step_flops(config: VLMConfig, trainable: Collection[str], attach=()) -> StepFlops:
    """What a step costs when the parameters at these paths train.

    Args:
      trainable, attach: of `vlm_jax.training.selection.Selection`.
    """
    vision, decoder = config.vision, config.decoder
    trainable = {path for path in trainable if not is_seed(path)}
    passes = gradients_pass(trainable)
    abstract = abstract_parameters(config)
    kernels = {path: leaf.size for path, leaf in abstract.items() if path.endswith("kernel") and not is_unused(path)}
    adapters = {
        path: leaf.size for path, leaf in abstract_parameters(config, attach=attach).items() if is_adapter(path)
    }
    cost = dict.fromkeys(passes, 0.0)
    for path, size in {**kernels, **adapters}.items():
        part = path.split("/")[0]
        if path.startswith(PREFIX):  # of each block of visual tokens: four, at the usual quarter
            part, size = "connector", size / 4
        first = path == "vision/patch_embed/kernel"
        if first:  # a still image needs one product for its equal temporal slices; pixels have no gradient
            size /= vision.temporal_patch_size
        cost[part] += 2 * size * (1 + (path in trainable) + (passes[part] and not first))

    output = 2 * decoder.hidden * decoder.vocab
    head = "embedding" if decoder.tied else "head"
    blocks = len([block for block in vision.global_blocks if block < vision.depth])

    def attention(layers: int, width: int, part: str) -> float:
        return 4.0 * layers * width * (3 if passes[part] else 1)

    return StepFlops(
        token=cost["decoder"],
        patch=cost["vision"] + cost["connector"] / vision.patches_per_token,
        supervised=output * (1.0 + (head in trainable) + passes["decoder"]),
        decoder_pair=attention(decoder.layers, decoder.heads * decoder.head_dim, "decoder"),
        window_pair=attention(vision.depth - blocks, vision.hidden, "vision"),
        image_pair=attention(blocks, vision.hidden, "vision"),
        block_slots=vision.block_slots,
        layers=decoder.layers,
    )

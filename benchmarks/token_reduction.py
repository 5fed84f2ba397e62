"""What fewer visual tokens save of a training step: time and memory by method and share, or products at 3B shapes.

    .venv/bin/python benchmarks/token_reduction.py [--device=gpu]
    .venv/bin/python benchmarks/token_reduction.py --products=3b
    .venv/bin/python benchmarks/token_reduction.py --topology=v5e:2x4 --rows=8

The first times steps of a small model on the same examples (one image each, and a text), rows as long as their tokens:
methods and shares in turn, the median of --turns. The second compiles nothing: it counts the products of the traced
step at published shapes, and what choosing takes of them, loops included. The third compiles the steps of 3B shapes for
a TPU slice that is not there: memory, and what chips send each other. Rows of all hold one example.
"""

import argparse
import functools
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no package that is installed

METHODS = (
    *("resize", "random", "uniform", "pool", "pool_learned"),
    *("divprune", "mmr", "mmr_learned", "cdpruner", "visionzip", "fastv", "pyramiddrop"),
)
GREEDY = ("divprune", "mmr", "mmr_learned", "cdpruner")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", default="", help="shapes by name (3b, 7b, …): count products, time nothing")
    parser.add_argument("--topology", default="", help="a TPU slice: compile for it, time nothing")
    parser.add_argument("--shares", default="0.5,0.25,0.1", help="beside all tokens; commas between")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"), help="where steps are timed")
    parser.add_argument("--visual_tokens", type=int, default=0, help="of an image; 0: 256, or 1,024 of 3B")
    parser.add_argument("--text_tokens", type=int, default=96, help="of an example, beside its image")
    parser.add_argument("--rows", type=int, default=4, help="examples a step")
    parser.add_argument("--turns", type=int, default=5, help="timed steps of each kind")
    parser.add_argument("--methods", default=",".join(METHODS), help="commas between")
    parser.add_argument("--train", default="full", help="config.train.trainable: full, frozen_vision, …")
    options = parser.parse_args()
    if unknown := set(options.methods.split(",")) - set(METHODS):
        sys.exit(f"no such method: {', '.join(sorted(unknown))}; known are {', '.join(METHODS)}")
    os.environ["JAX_PLATFORMS"] = "cpu" if options.products or options.device == "cpu" else ""
    (compile_steps if options.topology else count_products if options.products else time_steps)(options)


def kinds(options) -> list[tuple[str, float]]:
    """(method, share), all tokens once."""
    return [("resize", 1.0)] + [
        (method, float(share)) for method in options.methods.split(",") for share in options.shares.split(",")
    ]


def asking(model, spec, rows: int) -> float:
    """Products of weighing tokens within the decoder: one query an image against its row, in every layer below the
    last cut, which a scanned layer does whether it is the last of its range or not."""
    if not spec.size.above:
        return 0.0
    from vlm_jax.processing.token_budget import cut_layers

    decoder = model.decoder
    lengths, stops = (spec.size.tokens, *spec.size.above), (0, *cut_layers(spec.method, 0, decoder.layers))
    layers = zip(stops, stops[1:], lengths, strict=False)
    return sum(
        2.0 * rows * (stop - start) * tokens * decoder.heads * decoder.head_dim for start, stop, tokens in layers
    )


@functools.cache
def trainer_of(model, rows: int, train: str, method: str):
    """Of a model with what the method learns."""
    from vlm_jax.models.token_reduction import learned
    from vlm_jax.parallel import mesh as meshes
    from vlm_jax.training.config import default_config
    from vlm_jax.training.trainer import Trainer

    config = default_config()
    config.model.path = config.data.path = "-"
    config.batch.rows, config.train.trainable = rows, train
    model = learned.with_parameters(model, method)
    return Trainer(config, model, meshes.make_mesh(meshes.MeshShape(), None), 1000)


def spec_of(vision, method: str, share: float, visual: int, text: int):
    """Rows of one example whose image has `visual` tokens before anything is left out."""
    from vlm_jax.processing.example import Size
    from vlm_jax.processing.rows import RowSpec
    from vlm_jax.processing.token_budget import TokenBudget, kept_count

    budget = TokenBudget(share, method)
    if budget.cuts:
        slots = -(-visual * vision.patches_per_token // vision.block_slots) * vision.block_slots
        # Multiples of 64, as training has them, but no longer than below the cut.
        above = tuple(min(-(-(text + count) // 64) * 64, visual + text) for count in budget.counts_above(visual))
        size = Size(visual + text, slots, text - text // 2, above)
        return RowSpec.of(size, vision, budget), visual
    kept = budget.count(visual) if method == "resize" else kept_count(budget, layout_of(vision, visual)[1])
    tokens = kept if method == "resize" else visual
    slots = -(-tokens * vision.patches_per_token // vision.block_slots) * vision.block_slots
    size = Size(kept + text, slots, text - text // 2)
    return RowSpec.of(size, vision, budget), kept


def layout_of(vision, tokens: int):
    """The grid of an image of so many tokens, as square as may be, and how it lies in the tower."""
    from vlm_jax.processing.vision_layout import vision_layout

    grid = next((side, tokens // side) for side in range(int(tokens**0.5), 0, -1) if tokens % side == 0)
    return grid, vision_layout(*grid, vision.window_side, vision.merge_size)


def count_products(options) -> None:
    from vlm_jax.models.presets import PRESETS
    from vlm_jax.parallel import program_cost

    model, visual = PRESETS[options.products], options.visual_tokens or 1024
    width, whole = model.decoder.hidden, None
    print(f"{options.products}, {options.train}, {options.rows} examples of {visual} + {options.text_tokens} tokens")
    print("| method | share | TFLOP a step | of all tokens | choosing |\n|---|---|---|---|---|")
    chosen_by_host: dict[float, float] = {}
    if not {"random", "uniform"} & set(options.methods.split(",")):
        options.methods = f"uniform,{options.methods}"  # what choosing takes is told from it
    for method, share in sorted(kinds(options), key=lambda kind: kind[0] not in ("resize", "random", "uniform")):
        spec, kept = spec_of(model.vision, method, share, visual, options.text_tokens)
        total = program_cost.flops(
            trainer_of(model, options.rows, options.train, method).trace(spec.batch(options.rows)).jaxpr
        )
        rounds = 2.0 * kept * spec.candidates * width * options.rows if method in GREEDY and spec.method else 0.0
        if method == "cdpruner" and spec.method:
            rounds += 2.0 * kept * spec.size.tokens * spec.candidates * options.rows
        whole = whole or total
        if method in ("random", "uniform"):
            chosen_by_host[share] = total
        compared = spec.candidates and share in chosen_by_host
        choosing = total - chosen_by_host[share] + rounds if compared else asking(model, spec, options.rows)
        total += rounds
        share_of = f"{total / 1e12:.2f} | {total / whole:.0%} | {choosing / total:.2%}"
        print(f"| {method} | {share:.0%} | {share_of} |", flush=True)


def compile_steps(options) -> None:
    from vlm_jax.parallel import topology

    target = topology.parse(options.topology)
    topology.prepare(target)
    from configs.qwen2_5_vl_3b_full import get_config
    from vlm_jax.models.presets import PRESETS
    from vlm_jax.models.token_reduction import learned
    from vlm_jax.parallel import mesh as meshes
    from vlm_jax.training.compile_report import GB, report
    from vlm_jax.training.trainer import Trainer

    config, visual = get_config(), options.visual_tokens or 1024
    config.data.path, config.batch.rows, config.train.trainable = "-", options.rows, options.train
    mesh = meshes.make_mesh(meshes.MeshShape(**config.mesh), target.devices())
    print(f"3b, {options.train}, on {target.name}: {options.rows} rows of {visual} + {options.text_tokens} tokens")
    print("| method | share | TFLOP a chip | GiB a chip | of which temporaries | GiB exchanged | s to compile |")
    print("|---|---|---|---|---|---|---|")
    for method, share in kinds(options):
        model = learned.with_parameters(PRESETS["3b"], method)
        config.model.token_reduction = method
        trainer = Trainer(config, model, mesh, 1000)
        started = time.perf_counter()
        spec, _ = spec_of(model.vision, method, share, visual, options.text_tokens)
        traced = trainer.trace(spec.batch(options.rows))
        shape = (spec.size, options.rows)
        found = report(trainer, traced, traced.lower().compile(), target.memory, None, shape)
        sent = sum(size for _, size in found.collectives.values()) / GB
        memory = f"{found.memory.total / GB:.2f} | {found.memory.temporaries / GB:.2f}"
        seconds = time.perf_counter() - started
        work = found.flops / found.devices / 1e12
        print(f"| {method} | {share:.0%} | {work:.1f} | {memory} | {sent:.2f} | {seconds:.0f} |", flush=True)


def time_steps(options) -> None:
    import jax
    import numpy as np

    from vlm_jax.models.presets import PRESETS
    from vlm_jax.parallel import mesh as meshes
    from vlm_jax.parallel import program_cost

    model, visual = PRESETS["mini"], options.visual_tokens or 256
    steps = {}
    for number, (method, share) in enumerate(kinds(options), start=1):
        print(f"\rcompiling {number} of {len(kinds(options))}", end="", file=sys.stderr, flush=True)
        spec, kept = spec_of(model.vision, method, share, visual, options.text_tokens)
        batch = filled(spec, model, method, share, visual, options)
        trainer = trainer_of(model, options.rows, options.train, method)
        program = trainer.compile(batch)
        placed = meshes.to_devices(batch, trainer.mesh)
        steps[method, share] = (trainer, program, placed, program_cost.memory(program).total)
    print(file=sys.stderr)
    times: dict[tuple[str, float], list[float]] = {kind: [] for kind in steps}
    for turn in range(options.turns + 1):
        for kind, (trainer, program, batch, _) in steps.items():
            state = fresh(trainer)
            started = time.perf_counter()
            *_, metrics = program(*state, batch, np.int32(0))
            jax.block_until_ready(metrics)
            if turn:
                times[kind].append(time.perf_counter() - started)
    whole = statistics.median(times["resize", 1.0])
    print(f"{jax.devices()[0].device_kind}: mini, {options.rows} examples of {visual} + {options.text_tokens} tokens")
    print("| method | share | s a step | of all tokens | examples/s | memory, MiB |\n|---|---|---|---|---|---|")
    for (method, share), (*_, memory) in steps.items():
        middle = statistics.median(times[method, share])
        print(
            f"| {method} | {share:.0%} | {middle:.3f} | {middle / whole:.0%} | {options.rows / middle:.1f} | "
            f"{memory / 2**20:.0f} |"
        )


@functools.cache
def drawn(model):
    from flax import nnx

    from vlm_jax.models.parameters import flatten
    from vlm_jax.models.vlm import VLM

    return flatten(nnx.state(VLM(model, rngs=nnx.Rngs(0))))


def fresh(trainer):
    """A state of copies: a step takes the memory of what it is given."""
    import jax
    import jax.numpy as jnp

    return trainer.start(jax.tree.map(jnp.copy, drawn(trainer.model)))


def filled(spec, model, method: str, share: float, visual: int, options):
    """A batch of this shape with an image of noise in every row."""
    import numpy as np

    from vlm_jax.processing.example import CandidateTokens, Example, PatchedImage, TokensAbove
    from vlm_jax.processing.positions import mrope_positions
    from vlm_jax.processing.rows import assemble, stack
    from vlm_jax.processing.token_budget import POOLS, TokenBudget, blocks_of, stays

    rng, vision, budget = np.random.default_rng(0), model.vision, TokenBudget(share, method)
    tokens = budget.count(visual) if method == "resize" else visual
    grid, layout = layout_of(vision, tokens)
    rows = []
    for _ in range(options.rows):
        words = rng.integers(0, 256, options.text_tokens)
        ids = np.concatenate([np.full(tokens, model.image_token), words]).astype(np.int32)
        positions = mrope_positions(ids, [grid], model.image_token)
        patches = rng.integers(0, 256, (tokens, vision.patches_per_token, vision.patch_dim)).astype(np.uint8)
        stay = stays(budget, layout, patches) if budget.chooses else np.arange(tokens)
        kept, whole = len(stay), np.r_[stay, np.arange(tokens, len(ids))]
        weights = np.r_[np.zeros(kept + len(words) // 2), np.ones(len(words) - len(words) // 2)].astype(np.float32)
        blocks = blocks_of(budget, layout) if method in POOLS else None
        image = PatchedImage(patches, grid, layout, None if kept == tokens else stay, blocks)
        candidates = above = None
        if budget.cuts:  # the last word asks
            above = TokensAbove(np.array([budget.counts_above(tokens)]), np.array([tokens + len(words) // 2 - 1]))
        elif spec.method:
            questions = np.r_[np.zeros(kept), np.ones(len(words) // 2), np.zeros(len(words) - len(words) // 2)]
            question = (questions.astype(np.int32), np.ones(tokens, np.int32)) if method == "cdpruner" else (None, None)
            candidates = CandidateTokens(method, positions[:, :tokens], *question)
        rows.append(
            assemble(
                [Example(ids[whole], positions[:, whole], weights, (image,), model.image_token, candidates, above)],
                spec,
            )
        )
    return stack(rows)


if __name__ == "__main__":
    main()

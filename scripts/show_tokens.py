"""Draws which visual tokens of a picture a model sees: methods side by side, as one PNG and one HTML page.

    .venv/bin/python scripts/show_tokens.py --model=runs/photos --image=cat.jpg --output=tokens --visual_tokens=0.25

--method names one method, and may be given several times; without it, all are drawn. `cdpruner`, `fastv` and
`pyramiddrop` follow --question; of the last two what is left at the end of the decoder is drawn.
"""

import interrupts  # noqa: F401 - first of all

import dataclasses
import os
from pathlib import Path

from absl import flags

import command_line

flags.DEFINE_string("model", None, "Hugging Face folder, hub id, or run folder", required=True)
flags.DEFINE_string("image", None, "the picture", required=True)
flags.DEFINE_string("output", None, "folder for tokens.png and tokens.html", required=True)
flags.DEFINE_string("visual_tokens", "0.25", "a share of the picture's tokens, or a number of them")
flags.DEFINE_multi_string(
    "method", [], "resize, random, uniform, pool, divprune, mmr, cdpruner, visionzip, fastv, …; all without it"
)
flags.DEFINE_integer(
    "token_reduction_layer", None, "of fastv: decoder layers that see all tokens; as the model was trained, else 2"
)
flags.DEFINE_string("question", "What is in the picture?", "what is asked about it")


def main() -> None:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import vlm_jax
    from token_number import number_of
    from vlm_jax import output_folder, terminal
    from vlm_jax.checkpoint.files import write_text
    from vlm_jax.checkpoint.reduction_file import check_learned
    from vlm_jax.errors import InputError, gathered
    from vlm_jax.evaluation import kept_tokens
    from vlm_jax.processing.images import open_image
    from vlm_jax.processing.token_budget import FASTV, METHODS, TokenBudget, cut_layers

    options, errors, budgets = flags.FLAGS, [], []
    number = number_of("visual_tokens", options.visual_tokens)
    layer = options.token_reduction_layer
    for method in options.method or METHODS:
        with gathered(errors):
            budgets.append(TokenBudget(number, method, layer=layer or 0 if method == FASTV else 0))
        if errors and not options.method:
            break  # they have the number in common
    with gathered(errors):
        image = open_image(options.image)
    with gathered(errors):
        output_folder.check(
            Path(options.output), f"--output={options.output}", owner="a drawing's", marks=("tokens.png",)
        )
    if errors:
        raise InputError(errors)
    model = vlm_jax.load(options.model, visual_tokens=1.0)
    if layer is None and (own := own_budget(options.model)).method == FASTV:
        budgets = [dataclasses.replace(one, layer=own.layer) if one.method == FASTV else one for one in budgets]
    for budget in list(budgets):
        try:
            check_learned(budget, model.config, options.model)
            cut_layers(budget.method, budget.layer, model.config.decoder.layers)
            model.processor.with_reduction(budget).check_budget()
        except InputError as error:
            if options.method:
                raise
            terminal.say(f"{budget.method} is left out: {error}")
            budgets.remove(budget)
    panels = kept_tokens.panels(model, image, options.question, budgets)
    folder = Path(options.output)
    folder.mkdir(parents=True, exist_ok=True)
    kept_tokens.side_by_side(panels).save(folder / "tokens.png")
    title = f"{Path(options.image).name} as {options.model} sees it"
    write_text(folder / "tokens.html", kept_tokens.page(panels, title=title))
    print("\n".join(panel.title for panel in panels))
    print(f"drawn: {folder / 'tokens.png'}, {folder / 'tokens.html'}")


def own_budget(name: str):
    """What a model was trained with; all tokens where this version does not know it."""
    from vlm_jax.checkpoint.model_source import open_model
    from vlm_jax.errors import InputError
    from vlm_jax.processing.token_budget import ALL_TOKENS

    try:
        return open_model(name).budget
    except InputError:
        return ALL_TOKENS


if __name__ == "__main__":
    command_line.run(main)

"""An image drawn as a model sees it, with each of several methods: from a model's name to a PNG and a page.

`scripts/show_tokens.py` calls it. What a method keeps, and how that is drawn, is `kept_tokens`'.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from vlm_jax import output_folder, terminal
from vlm_jax.checkpoint.files import write_text
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.checkpoint.reduction_file import check_learned
from vlm_jax.errors import InputError, gathered
from vlm_jax.evaluation import kept_tokens
from vlm_jax.inference.engine import LoadedModel
from vlm_jax.inference.loading import load
from vlm_jax.processing.images import open_image
from vlm_jax.processing.token_budget import ALL_TOKENS, FASTV, METHODS, TokenBudget, cut_layers

IMAGE, PAGE = "tokens.png", "tokens.html"


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What is drawn.

    Attributes:
      model: Hugging Face folder, hub id, or run folder.
      image: its file.
      output: folder for `IMAGE` and `PAGE`; it may be given as text.
      visual_tokens: a share of the image's tokens, or a number of them.
      question: what is asked about it, which some methods follow.
      methods: of `token_budget.METHODS`; none: all that the model can take.
      layer: of fastv, decoder layers that see all tokens; None: as the model was trained, else 2.
    """

    model: str
    image: str
    output: Path
    visual_tokens: float | int
    question: str
    methods: Sequence[str] = ()
    layer: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "output", Path(self.output))


def draw(drawing: Drawing, *, say: Callable[[str], None] = terminal.say) -> list[kept_tokens.Panel]:
    """Writes the drawing and the page. Returns what each method keeps, as it is drawn.

    Args:
      say: called with which methods are left out and why, a line each.

    Raises:
      InputError: settings, an image or a folder that cannot be used, told together; a model that cannot; or a method
        of `methods` that the model cannot take.
    """
    errors: list[str] = []
    budgets = _budgets(drawing, errors)
    output = drawing.output
    if drawing.layer is not None and drawing.methods and FASTV not in drawing.methods:
        named = ", ".join(drawing.methods)
        errors.append(f"--token_reduction_layer={drawing.layer}: is of {FASTV}, and --method is {named}")
    with gathered(errors):
        image = open_image(drawing.image)
    with gathered(errors):
        output_folder.check(output, f"--output={output}", owner="a drawing's", marks=(IMAGE,))
    if errors:  # methods have the number in common
        raise InputError(list(dict.fromkeys(errors)))
    model = load(drawing.model, visual_tokens=1.0)
    panels = kept_tokens.panels(model, image, drawing.question, _possible(drawing, model, budgets, say))
    output.mkdir(parents=True, exist_ok=True)
    kept_tokens.side_by_side(panels).save(output / IMAGE)
    title = f"{Path(drawing.image).name} as {drawing.model} sees it"
    write_text(output / PAGE, kept_tokens.page(panels, title=title))
    return panels


def _budgets(drawing: Drawing, errors: list[str]) -> list[TokenBudget]:
    """One for each method; what is wrong is added to `errors`."""
    budgets: list[TokenBudget] = []
    for method in drawing.methods or METHODS:
        with gathered(errors):
            layer = drawing.layer or 0 if method == FASTV else 0
            budgets.append(TokenBudget(drawing.visual_tokens, method, layer=layer))
    return budgets


def _possible(
    drawing: Drawing, model: LoadedModel, budgets: Sequence[TokenBudget], say: Callable[[str], None]
) -> list[TokenBudget]:
    """Those that the model can take. Raises InputError for another that was asked for by name."""
    if drawing.layer is None and (own := _own_budget(drawing.model)).method == FASTV:
        budgets = [dataclasses.replace(one, layer=own.layer) if one.method == FASTV else one for one in budgets]
    possible = []
    for budget in budgets:
        try:
            check_learned(budget, model.config, drawing.model)
            cut_layers(budget.method, budget.layer, model.config.decoder.layers)
            model.processor.with_reduction(budget).check_budget()
            if budget.by_question and not drawing.question.strip():
                raise InputError(f"{budget.method} follows --question, which is empty")
        except InputError as error:
            if drawing.methods:
                raise
            say(f"{budget.method} is left out: {error}")
        else:
            possible.append(budget)
    return possible


def _own_budget(name: str) -> TokenBudget:
    """What a model was trained with; all tokens where this version does not know it."""
    try:
        return open_model(name).budget
    except InputError:
        return ALL_TOKENS

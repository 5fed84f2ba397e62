"""What a run will ask for and about what it will cost, before anything is asked.

What is in the store is counted exactly. A stage whose items are known has its requests counted, those behind it are
estimated by how many items come of each; tokens are those of the answers so far, else a guess by the settings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipeline.corpus.evidence import KINDS
from data_pipeline.corpus.filters import registry
from data_pipeline.corpus.pipeline import ORDER, Pipeline
from data_pipeline.corpus.stages import context, facts, images, known, questions, topics
from data_pipeline.corpus.stages.stage import Item, Settings, Stage
from data_pipeline.teachers import prices
from data_pipeline.teachers.prices import Price
from data_pipeline.teachers.request import Request, Usage

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        topics.TOPICS,
        known.PROBES,
        known.KNOWN,
        facts.FACTS,
        facts.SUPPORT,
        images.IMAGE_PROMPTS,
        images.IMAGES,
        questions.QUESTIONS,
        context.CONTEXT,
    )
}
_PROMPT, _ANSWER = 400, 600  # tokens, where nothing is known of a stage yet
HERE = ("drawn", "local")
"""Kinds of teachers that answer on this machine, for nothing."""


@dataclass(frozen=True)
class Line:
    """Of a stage: who is asked, how many calls are still to be made, tokens and dollars of those.

    Attributes:
      exact: the calls are counted; otherwise they are an estimate.
      cost: in dollars; None where the model has no price.
    """

    stage: str
    model: str
    calls: int
    exact: bool
    usage: Usage
    cost: float | None


class _Missing(Exception):
    pass


class _Dry(Pipeline):
    """Goes through the stages as far as their answers are known, and writes nothing."""

    def step(self, stage: Stage, items: Sequence[Item]) -> list[Item]:
        asked = [[self._of(stage, one) for one in stage.requests(item, self.settings)] for item in items]
        requests = [one for some in asked for one in some]
        teacher = self.teacher(stage.teacher, requests[0].kind)
        missing = list(self.asker.missing(teacher, requests).values())
        self.requests[stage.name] = missing
        if missing:
            self.items[stage.name] = len(items)
            raise _Missing
        found = super().step(stage, items)
        self.made[stage.name] = len(found)
        return found

    def _write(self, stage: Stage, items: Sequence[Item], notes: Sequence[str]) -> None:
        self.counts[stage.name], self.left_out[stage.name] = len(items), list(notes)


def projected(pipeline_: Pipeline, price: Mapping[str, Price]) -> list[Line]:
    """A line for each stage that has calls to make."""
    dry = _Dry(pipeline_.settings, pipeline_.folder, pipeline_.asker, topics=pipeline_.topics, say=lambda text: None)
    dry.requests, dry.items, dry.made = {}, {}, {}
    try:
        dry._questions()
    except _Missing:
        pass
    settings = dry.settings
    used = {(one["stage"], one["model"]): one for one in pipeline_.asker.store.sums()}
    lines = []
    for name, calls in _calls(dry, settings).items():
        if not calls:
            continue
        stage, exact = STAGES[name], name in dry.requests
        teacher = settings["teachers"][stage.teacher]
        model = str(teacher.get("model") or teacher["kind"])
        usage = _usage(used.get((name, model)), dry.requests.get(name, ()), calls, stage, teacher)
        lines.append(Line(name, model, calls, exact, usage, _cost(model, teacher, usage, price)))
    return lines + _filters(dry, settings, used, price)


def _filters(dry: "_Dry", settings: Settings, used: Mapping[tuple[str, str], Any], price: Mapping[str, Price]) -> list:
    """Of the filters that ask somebody, about as many calls as there are questions: none is left out before."""
    counts = _counts(dry, settings)
    questions = counts.get("questions", 0.0) + counts.get("context", 0.0)
    lines = []
    for name in registry.select(settings["filters"]):
        evidence = registry.FILTERS[name].evidence
        kind = KINDS.get(evidence)
        if kind is None:
            continue
        asked = counts.get("context", 0.0) if evidence == "from_article" else questions
        each = {"verdicts": 1, "embeddings": 2}.get(evidence, settings["samples"])
        teacher = settings["teachers"][kind.teacher]
        model = str(teacher.get("model") or teacher["kind"])
        before = used.get((evidence, model))
        calls = max(0, round(asked * each) - (before["calls"] if before else 0))
        if calls:
            stage = Stage(evidence, kind.teacher, lambda item, settings: [], lambda *_: ([], []), kind.form)
            usage = _usage(before, (), calls, stage, teacher)
            lines.append(Line(evidence, model, calls, False, usage, _cost(model, teacher, usage, price)))
    return lines


def _cost(model: str, teacher: Mapping[str, Any], usage: Usage, price: Mapping[str, Price]) -> float | None:
    if teacher["kind"] in HERE:
        return 0.0
    return price[model].of(usage, batch=bool(teacher.get("batch_folder"))) if model in price else None


_GUESSED = (
    f"where nothing is known, a call is taken for {_PROMPT} tokens in and {_ANSWER} out: --preview=10 makes some, and "
    "the next dry run goes by them"
)


def table(lines: Sequence[Line], guessed: str = _GUESSED) -> str:
    """The projection as text, with its sum.

    Args:
      guessed: how what is no exact count was taken for.
    """
    if not lines:
        return "nothing is left to ask: every answer is kept already"
    rows = [
        f"{line.stage:14} {line.model:28} {'' if line.exact else '~'}{line.calls:>9,} "
        f"{line.usage.input:>13,} {line.usage.tokens - line.usage.input:>13,} "
        f"{'?' if line.cost is None else f'{line.cost:.2f}':>10}"
        for line in lines
    ]
    head = f"{'stage':14} {'teacher':28} {'calls':>10} {'tokens in':>13} {'tokens out':>13} {'$':>10}"
    whole = sum(line.cost or 0.0 for line in lines)
    last = [f"about ${whole:.2f} in all, and no call was made"]
    if any(not line.exact for line in lines):
        last.append(f"~ marks what follows from answers that are not there yet; {guessed}")
    if unknown := dict.fromkeys(line.model for line in lines if line.cost is None):
        last.append(
            f"? is not in the sum: no price for {', '.join(unknown)}; set it in config.prices, 0 where nothing is paid"
        )
    return "\n".join([head, *rows, *last])


def _calls(dry: "_Dry", settings: Settings) -> dict[str, int]:
    """{stage: calls still to be made}: counted up to the first stage with something missing, estimated behind it."""
    calls = {name: len(requests) for name, requests in dry.requests.items()}
    _counts(dry, settings, calls)
    return calls


def _counts(dry: "_Dry", settings: Settings, calls: dict[str, int] | None = None) -> dict[str, float]:
    """{stage: items that come of it}, known or estimated; `calls` gets those of the stages that are estimated."""
    calls = {name: len(requests) for name, requests in dry.requests.items()} if calls is None else calls
    first = next((name for name in ORDER if calls.get(name)), None)
    if first is None:
        return {name: float(made) for name, made in dry.made.items()}
    items = float(dry.items[first])
    behind = ORDER[ORDER.index(first) :]
    count = {**{name: float(made) for name, made in dry.made.items()}, f"before {first}": items}
    teachers = settings["teachers"]
    asked = bool(teachers["student"] and settings["known"]["questions"])
    for name in behind:
        if name == "context" and settings["context"]["images"]:
            continue  # of images that are there already
        if name in ("probes", "known") and not asked or name == "support" and not facts.are_checked(settings):
            continue
        if name == "context" and not settings["context"]["questions"]:
            continue
        requests_each, items_each = STAGES[name].each(settings)
        before = items if name == first else _before(name, count)
        if name != first:
            calls[name] = round(before * requests_each)
        elif name == "questions":
            before /= max(1, requests_each)  # its items are parts of what is asked about a fact
        count[name] = before * items_each
        if name == "topics" and dry.topics:
            count[name] = min(count[name], dry.topics)
    return count


def _before(name: str, count: Mapping[str, float]) -> float:
    """How many items a stage has: those of the stage that it follows."""
    follows = {
        "probes": ("topics",),
        "known": ("probes", "topics"),
        "facts": ("known", "topics"),
        "support": ("facts",),
        "image_prompts": ("known", "topics"),
        "images": ("image_prompts",),
        "questions": ("support", "facts"),
        "context": ("images",),
    }[name]
    return next((count[one] for one in follows if one in count), 0.0)


def _usage(
    used: Mapping[str, Any] | None, requests: Sequence[Request], calls: int, stage: Stage, teacher: Mapping[str, Any]
) -> Usage:
    if teacher["kind"] in HERE:
        return Usage()
    if used is not None:
        return Usage(**{name: round(value * calls / used["calls"]) for name, value in used["usage"].items()})
    most = int(teacher.get("max_output_tokens", _ANSWER))
    output = min(most, _ANSWER)
    if requests:
        whole = Usage()
        for one in requests:
            whole += prices.estimated(one, output)
        return whole
    image = prices.estimated(Request("image", ""), 0).image if stage.teacher == "image" else 0
    return Usage(input=_PROMPT * calls, output=0 if image else output * calls, image=image * calls)

"""What an alignment would ask, before anything is asked: calls, tokens and dollars."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_pipeline.corpus.projection import HERE, Line, table
from data_pipeline.parity import annotate, identify
from data_pipeline.parity.pairs import Pair
from data_pipeline.parity.prompts import Prompt
from data_pipeline.parity.unlabelled import Image
from data_pipeline.teachers.asking import Asker
from data_pipeline.teachers.prices import Price, estimated
from data_pipeline.teachers.request import Request, Usage
from data_pipeline.teachers.teacher import Teacher


def projected(
    images: Sequence[Image], prompt: Prompt, settings: Mapping[str, Any], asker: Asker, teacher: Teacher
) -> str:
    """A table of the first round: what annotating still asks, exactly, and what comparing asks at most; exactly, too,
    where all pairs are written."""
    requests = annotate.requests(images, prompt, settings["annotate"], 1)
    missing = list(asker.missing(teacher, requests).values())
    if not missing:
        replies = asker.ask(teacher, requests)  # from the store
        pairs = annotate.read(images, replies, settings["annotate"], seed=settings["seed"]).pairs
        return projected_of_pairs(pairs, settings, asker, teacher) + _of_rounds(settings)
    written, answer = settings["annotate"]["max_output_tokens"], settings["ask"]["max_output_tokens"]
    question = Request("text", "a question of about twenty words" * 4, requests[0].images)
    asked = [question] * (len(requests) * settings["identify"]["samples"])
    lines = [
        _line("annotate", missing, True, written, settings, asker.prices),
        _line("identify", asked, False, answer, settings, asker.prices),
    ]
    said = table(lines, "a pair is taken for one that is compared, with the most tokens that an answer may have")
    return said + _of_rounds(settings)


def _of_rounds(settings: Mapping[str, Any]) -> str:
    rounds = settings["rounds"]
    return f"\nthat is the first of {rounds} rounds, and each of the others asks up to as much" if rounds > 1 else ""


def projected_of_pairs(pairs: Sequence[Pair], settings: Mapping[str, Any], asker: Asker, teacher: Teacher) -> str:
    """A table of what comparing pairs that are written still asks the teacher, exactly."""
    requests = identify.requests(pairs, settings, stage=identify.STAGE, samples=settings["identify"]["samples"])
    missing = list(asker.missing(teacher, requests).values())
    line = _line("identify", missing, True, settings["ask"]["max_output_tokens"], settings, asker.prices)
    return table([line] if missing else [], "pairs are written already")


def _line(
    stage: str,
    requests: Sequence[Request],
    exact: bool,
    output: int,
    settings: Mapping[str, Any],
    prices: Mapping[str, Price],
) -> Line:
    teacher = settings["teachers"]["text"]
    if teacher["kind"] in HERE:
        return Line(stage, teacher["model"], len(requests), exact, Usage(), 0.0)
    usage = Usage()
    for request in requests:
        usage += estimated(request, output)
    price = prices.get(teacher["model"])
    cost = None if price is None else price.of(usage, batch=bool(teacher.get("batch_folder")))
    return Line(stage, teacher["model"], len(requests), exact, usage, cost)

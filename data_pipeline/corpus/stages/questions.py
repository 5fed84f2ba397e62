"""From facts and images to questions with short answers, and with a chain of thought before the answer."""

from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, Field

import vlm_jax
from data_pipeline.corpus import prompts
from data_pipeline.corpus.filters.pair import text_hash
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage
from data_pipeline.teachers.request import Request
from vlm_jax.evaluation.metrics.chain_of_thought import MARKS

FIELDS = ("name", "local_name", "statement", "answer", "count", "manner", "visible")
AT_ONCE = 10
"""Questions of one request, at most."""
MANNERS = (
    "plainly",
    "briefly",
    "as a curious traveller would",
    "as a teacher would",
    "as somebody would who has the thing before them",
    "in a whole sentence with a courteous turn",
    "as a child would",
    "as in a quiz",
)
"""In which questions are asked, one a request in turn: otherwise each brings the same."""
ANSWER = {"th": MARKS[1]}
"""What stands before the short answer at the end of a chain of thought, by language; elsewhere the English one."""


SPLITS = ("train", "synthetic", "photo")
"""To train on, and held out: about generated images, and in the same words about real ones."""
STEPS = {"en": "Think step by step.", "th": "คิดทีละขั้นตอน"}
"""What is added to a question that wants its chain of thought, by language; elsewhere the English one."""


class Pair(BaseModel):
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    steps: str = ""


class Pairs(BaseModel):
    pairs: list[Pair] = Field(min_length=1)


def wanted(facts: Sequence[Item], images: Sequence[Item], settings: Settings) -> list[Item]:
    """What to ask for: for each fact, language and form so many questions, about these images.

    Facts whose topic has no image to train on are left out.
    """
    of_topic: dict[tuple[str, str], list[Item]] = defaultdict(list)
    for image in images:
        of_topic[image["topic"], image["split"]].append(image)
    items = []
    for fact in facts:
        for split in SPLITS:
            own = of_topic[fact["topic"], split]
            for language, form, count in counts(settings, split, text_hash(fact["id"]) % len(settings["languages"])):
                for start in range(0, count if own else 0, AT_ONCE):
                    identity = f"{fact['id']}/{split}-{language}-{form}-{start:04}"
                    asked = {"language": language, "form": form, "count": min(AT_ONCE, count - start), "first": start}
                    items.append({**fact, "id": identity, "fact": fact["id"], "split": split, "images": own, **asked})
    return items


def counts(settings: Settings, split: str, turn: int = 0) -> list[tuple[str, str, int]]:
    """(language, form, questions) for a fact. Languages share evenly; what is left over goes to one after the other.

    Args:
      turn: of the fact: which language is the first to have of it.
    """
    whole = settings["questions"]["pairs_per_fact"] if split == "train" else settings["held_out"]["questions"]
    steps = round(whole * settings["questions"]["steps"]) if split == "train" else 0
    languages, found = settings["languages"], []
    for number, language in enumerate(languages):
        place = (number + turn) % len(languages)
        count, reasoned = (one // len(languages) + (place < one % len(languages)) for one in (whole, steps))
        found += [(language, "simple", count - reasoned), (language, "steps", reasoned)]
    return [one for one in found if one[2]]


def requests(item: Item, settings: Settings) -> list[Request]:
    values = {
        **{name: item[name] for name in ("name", "local_name", "statement", "visible", "count")},
        "answer": item["answers"][item["language"]],
        "manner": MANNERS[item["first"] // AT_ONCE % len(MANNERS)],
    }
    text = prompts.read(item["form"], item["language"], FIELDS, settings["prompts"]).rendered(values)
    # Questions that are held out are asked for anew, so that they are others; in training each request has its turn.
    sample = item["first"] // AT_ONCE // len(MANNERS) + (0 if item["split"] == "train" else 1000)
    subject = {name: item[name] for name in ("aspect", "language", "form", "split", "first")}
    return [Request("text", text, sample=sample, subject={**values, **subject})]


def read(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['id']}: {answer.failure}"]
    short, found, notes = item["answers"][item["language"]], [], []
    for number, pair in enumerate(answer.value.pairs[: item["count"]]):
        identity = f"{item['fact']}/{item['split']}-{item['language']}-{item['form']}-{item['first'] + number:04}"
        if vlm_jax.score("normalised", pair.answer, [short]) < 1.0:
            notes.append(f"{identity}: the answer is {pair.answer!r}, where the fact's is {short!r}")
            continue
        steps = item["form"] == "steps"
        if steps and not pair.steps.strip():
            notes.append(f"{identity}: has no steps")
            continue
        # With steps of other images than without: the same question of the same image is one too many.
        image = item["images"][(item["first"] + number + steps) % len(item["images"])]
        found.append(
            {
                "id": identity,
                "topic": item["topic"],
                "name": item["name"],
                "local_name": item["local_name"],
                "fact_id": item["fact"],
                "fact": item["statement"],
                "task": item["aspect"],
                "split": item["split"],
                "language": item["language"],
                "image": image["image"],
                "image_source": image.get("image_source", "generated"),
                "question": pair.question.strip(),
                "wants": STEPS.get(item["language"], STEPS["en"]) if steps else "",
                "answer": short,
                "reasoning": chain(pair.steps, short, item["language"]) if steps else "",
            }
        )
    return found, notes


def chain(steps: str, short: str, language: str) -> str:
    """A chain of thought that ends with the short answer on a line of its own."""
    return f"{steps.strip()}\n{ANSWER.get(language, MARKS[0])} {short}"


def _each(settings: Settings) -> tuple[float, float]:
    """Of a fact. Those about photographs are in the words of those about generated images, and asked for once."""
    whole = [count for split in SPLITS[:2] for _, _, count in counts(settings, split)]
    return sum(-(-count // AT_ONCE) for count in whole), sum(whole)


QUESTIONS = Stage(name="questions", teacher="text", form=Pairs, requests=requests, read=read, each=_each)

"""From topics with their facts to images: prompts for several views, places and styles, then the images themselves."""

import itertools
from collections import defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, Field

from data_pipeline.corpus import prompts
from data_pipeline.corpus.filters.pair import text_hash
from data_pipeline.corpus.stages.stage import Answer, Item, Settings, Stage
from data_pipeline.teachers.request import Request

FIELDS = ("name", "local_name", "description", "visible", "shots")


class ImagePrompts(BaseModel):
    prompts: list[str] = Field(min_length=1)


def with_facts(topics: Sequence[Item], facts: Sequence[Item], settings: Settings) -> list[Item]:
    """Each topic with what must be seen of it, and what its images shall be like, held-out ones among them.

    A topic without facts has no images.
    """
    wanted = [("train", settings["image_prompts"]["each"]), ("synthetic", settings["held_out"]["images"])]
    own: dict[str, list[Item]] = defaultdict(list)
    for fact in facts:
        own[fact["topic"]].append(fact)
    items, looks = [], _looks(settings)
    for topic in topics:
        if topic["id"] not in own:
            continue
        visible = "; ".join(dict.fromkeys(fact["visible"] for fact in own[topic["id"]] if fact["visible"]))
        # Topics begin at other places of the list, so that no look belongs to a topic; by their own names, so that a
        # topic more or less changes nothing of the others'.
        every = itertools.islice(itertools.cycle(looks), text_hash(topic["id"]) % len(looks), None)
        shots = [{"split": split, **next(every)} for split, count in wanted for _ in range(count)]
        items.append({**topic, "visible": visible, "shots": shots})
    return items


def _looks(settings: Settings) -> list[dict[str, str]]:
    """Views, places and styles in every combination, neighbours as different as may be."""
    own = settings["image_prompts"]
    views, places, styles = own["views"], own["settings"], own["styles"]
    every = list(itertools.product(range(len(views)), range(len(places)), range(len(styles))))
    every.sort(key=lambda one: (sum(one) % max(len(views), len(places), len(styles)), one))
    return [{"view": views[view], "setting": places[place], "style": styles[style]} for view, place, style in every]


def prompt_requests(item: Item, settings: Settings) -> list[Request]:
    shots = "\n".join(
        f"{number}. {shot['view']}, {shot['setting']}; {shot['style']}" for number, shot in enumerate(item["shots"], 1)
    )
    values = {**{name: item[name] for name in FIELDS[:4]}, "shots": shots}
    text = prompts.read("image_prompts", settings["language"], FIELDS, settings["prompts"]).rendered(values)
    return [Request("text", text, subject={**values, "shots": item["shots"]})]


def read_prompts(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['name']}: {answer.failure}"]
    found, notes = [], []
    if len(answer.value.prompts) < len(item["shots"]):
        notes.append(
            f"{item['name']}: {len(answer.value.prompts)} image prompts, where {len(item['shots'])} were wanted"
        )
    before: set[str] = set()
    for number, (shot, prompt) in enumerate(zip(item["shots"], answer.value.prompts, strict=False)):
        identity = f"{item['id']}/{shot['split']}-{number:03}"
        if not prompt.strip() or prompt in before:  # the same prompt is the same image, which may be of another split
            notes.append(f"{identity}: {'the same prompt again' if prompt.strip() else 'an empty prompt'}")
            continue
        before.add(prompt)
        found.append({"id": identity, "topic": item["id"], "name": item["name"], "prompt": prompt, **shot})
    return found, notes


def image_requests(item: Item, settings: Settings) -> list[Request]:
    return [Request("image", item["prompt"], subject=item)]


def read_image(item: Item, answers: Sequence[Answer], settings: Settings) -> tuple[list[Item], list[str]]:
    (answer,) = answers
    if answer.failure:
        return [], [f"{item['id']}: {answer.failure}"]
    return [{**item, "image": answer.value}], []


def _each(settings: Settings) -> tuple[float, float]:
    return 1, settings["image_prompts"]["each"] + settings["held_out"]["images"]


IMAGE_PROMPTS = Stage(
    name="image_prompts", teacher="text", form=ImagePrompts, requests=prompt_requests, read=read_prompts, each=_each
)
IMAGES = Stage(name="images", teacher="image", requests=image_requests, read=read_image)

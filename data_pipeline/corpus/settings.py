"""The settings of a corpus that teachers make, with their defaults and what they mean; and whether they can be.

Files in `configs/corpus/` start from `corpus_config()` and change what is theirs. Settings of teachers are
`data_pipeline.teachers.settings`'.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from data_pipeline import setting_groups
from data_pipeline.corpus import exports, leakage
from data_pipeline.corpus.evidence import KINDS
from data_pipeline.corpus.filters import registry
from data_pipeline.corpus.shards import filtering
from data_pipeline.teachers import settings as teacher_settings
from data_pipeline.teachers.prices import prices_of
from vlm_jax.errors import InputError, gathered, nearest

KIND = "generated"
"""Of `config.corpus`, beside those that are drawn whole (`offline.MAKERS`)."""
TEACHERS = ("text", "image", "judge", "student", "embedding")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*")


def defaults() -> ConfigDict:
    """Every setting: the page on which a person looks up what there is."""
    return ConfigDict(
        {
            "corpus": KIND,  # made by teachers, stage by stage
            "subject": "",  # what the corpus is about, in a few words: "Thai culture"
            "language": "en",  # of the prompts: en | th, or one that config.prompts has
            "languages": ("en",),  # of questions and answers, by their codes
            "local_language": "Thai",  # of the second name of a topic
            "prompts": "",  # folder of your own prompts, by the names of those in data_pipeline/corpus/prompts
            "seed": 0,  # of the choices that are made here
            "topics": {
                "domains": (),  # parts of the subject; each is asked for topics of its own
                "each": 20,  # topics of a domain
            },
            # Topics that the student knows are set aside.
            "known": {
                "questions": 3,  # that it is asked of a topic, without an image; 0: it is not asked
                "share": 0.5,  # of them answered, or more: it knows the topic
                "suffix": "Answer in a few words.",  # behind each question
            },
            "facts": {
                "each": 5,  # of a topic, at most
                "checked": True,  # the judge is asked whether they are so, before images are made of them
            },
            "image_prompts": {
                "each": 4,  # images of a topic to train on
                # Each image is one combination: how it is seen, where, and in which style.
                "views": ("a close view", "seen from a few steps away", "from above", "from the side"),
                "settings": ("where it is usually found", "in daylight", "indoors", "among people who use it"),  # where
                "styles": ("a photograph", "a photograph taken with a phone", "a documentary photograph"),  # in which
            },
            "questions": {
                "pairs_per_fact": 10,  # questions and answers to train on: 10 is 1×, 100 is 10×
                "steps": 0.1,  # the share of them with a chain of thought
            },
            # To evaluate on.
            "held_out": {
                "questions": 0,  # of a fact, in other words and about other images; 0: none
                "images": 1,  # of a topic, of their own: the split synthetic
                "photographs": "",  # a folder with a folder a topic, named as it: real images, the split photo
                # At most so many questions of a split, spread over the topics; 0: all.
                "synthetic": 0,  # of it
                "photo": 0,  # of it
            },
            # Articles with questions that need image and article.
            "context": {
                "questions": 0,  # of an image; 0: no articles
                "images": "",  # a folder or records of your own; "" for the images that are generated
                "image_source": "",  # what they are counted as; "" for the name of their folder, or what records say
                "held_out": 0.0,  # the share of your own images that goes into the split test
            },
            "filters": _filters_at_first(),  # what is left out, each with its options; "on" switches it
            # What runs the filters of words; what they leave is the same.
            "runner": "here",  # here | processes | ray: this process, several of this machine, or Ray at RAY_ADDRESS
            "shards": 0,  # pieces that processes or Ray are given; 0: one a core
            "samples": 1,  # answers that the student or the teacher is asked for, where a filter wants to know them
            "negatives": 0.0,  # so large a share is asked again of an image that does not show it
            "splits": {
                "apart": ("image",),  # what no two splits may have in common: topic, fact, image, question
                "near_images": True,  # count images of two splits that are nearly the same
            },
            "card": {
                "title": "",  # of the corpus; "" for its subject
                "licence": "",  # for you to choose; the card says so where none is chosen
                "formats": (),  # beside the records: arrayrecord | imagefolder | llava | tfds
            },
            # Who is asked: {"kind": vertex | openai_compatible | local | drawn, "model": …}; {} or nobody.
            "teachers": {
                "text": {},  # writes topics, facts, prompts of images, questions and articles
                "image": {},  # makes images
                "judge": {},  # checks facts, and questions where filters.judged is on
                "student": {},  # who is to be taught: what it knows is not
                "embedding": {},  # vectors of texts, where filters.near_fact is on
            },
            "own_judge": False,  # the judge may be the teacher whose answers it judges
            "prices": {},  # {"date": day, model: {"input", "output", "image"}}: dollars for a million tokens
        }
    )


def corpus_config(**changes: Any) -> ConfigDict:
    """All settings. A mapping among the changes changes what it names and keeps the rest of its group.

    Raises:
      InputError: a change of a setting that is not there.
    """
    filters = {name: {"on": one} if isinstance(one, bool) else one for name, one in changes.get("filters", {}).items()}
    return setting_groups.changed(defaults(), {**changes, **({"filters": filters} if filters else {})})


def without_nobody(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with {} for teachers of the kind nobody, which is how a command line leaves one out."""
    teachers = {name: {} if one.get("kind") == "nobody" else one for name, one in settings["teachers"].items()}
    return {**settings, "teachers": teachers}


def _filters_at_first() -> dict[str, dict[str, Any]]:
    """As the filters have it, but that a question may be asked of several images in the same words."""
    settings = registry.default_settings()
    settings["near_duplicate"]["same_image"] = True
    return settings


def check(settings: Mapping[str, Any]) -> None:
    """Raises InputError, with every error, where a corpus cannot be made with these."""
    if errors := setting_groups.of_other_types(settings, defaults().to_dict()):
        raise InputError(errors)
    wants_topics = bool(settings["topics"]["domains"]) or settings["context"]["images"] == ""
    domains = settings["topics"]["domains"]
    if wants_topics and not domains and settings["context"]["questions"]:
        raise InputError(
            "config.context.images is not set; name a folder or records with your own images, or config.subject and "
            "config.topics.domains to have images made"
        )
    if wants_topics and not settings["subject"]:
        errors.append("config.subject is not set; say what the corpus is about, in a few words")
    if wants_topics and not domains:
        errors.append("config.topics.domains is empty; name at least one domain of the subject")
    if not settings["languages"]:
        errors.append("config.languages is empty; name at least one, such as en")
    errors += [
        f"config.languages names {code!r}; wanted a code such as en or th"
        for code in settings["languages"]
        if not _LANGUAGE.fullmatch(code)
    ]
    if len(set(settings["languages"])) < len(settings["languages"]):
        errors.append(f"config.languages names one twice: {', '.join(settings['languages'])}")
    errors += _counts(settings)
    if folder := settings["context"]["images"]:
        if not Path(folder).exists():
            errors.append(f"config.context.images is {folder!r}, where there is no folder and no file")
        if not settings["context"]["questions"]:
            errors.append("config.context.questions is 0: nothing is asked about config.context.images")
    if settings["prompts"] and not Path(settings["prompts"]).is_dir():
        errors.append(f"config.prompts is {settings['prompts']!r}, where there is no folder")
    errors += _teachers(settings, wants_topics)
    errors += _filters(settings)
    if settings["runner"] not in filtering.RUNNERS:
        near = nearest(settings["runner"], filtering.RUNNERS)
        errors.append(f"config.runner is {settings['runner']!r}; {near}")
    if settings["shards"] < 0:
        errors.append(f"config.shards is {settings['shards']}; wanted at least 1, or 0 for one a core")
    errors += [
        f"config.card.formats names {name!r}; {nearest(name, exports.FORMATS)}"
        for name in settings["card"]["formats"]
        if name not in exports.FORMATS
    ]
    with gathered(errors):
        prices_of(settings["prices"])
    if errors:
        raise InputError(errors)


def _counts(settings: Mapping[str, Any]) -> list[str]:
    least = {
        ("topics", "each"): 1,
        ("known", "questions"): 0,
        ("facts", "each"): 1,
        ("image_prompts", "each"): 1,
        ("questions", "pairs_per_fact"): 0,
        ("held_out", "questions"): 0,
        ("held_out", "images"): 0,
        ("held_out", "synthetic"): 0,
        ("held_out", "photo"): 0,
        ("context", "questions"): 0,
    }
    errors = [
        f"config.{group}.{name} is {settings[group][name]}; wanted at least {low}"
        for (group, name), low in least.items()
        if settings[group][name] < low
    ]
    shares = {
        ("known", "share"): settings["known"]["share"],
        ("questions", "steps"): settings["questions"]["steps"],
        ("context", "held_out"): settings["context"]["held_out"],
    }
    if not 0 <= settings["negatives"] <= 1:
        errors.append(f"config.negatives is {settings['negatives']}; wanted a share from 0 to 1")
    if settings["samples"] < 1:
        errors.append(f"config.samples is {settings['samples']}; wanted at least 1")
    errors += [
        f"config.{group}.{name} is {value}; wanted a share from 0 to 1"
        for (group, name), value in shares.items()
        if not 0 <= value <= 1
    ]
    own = settings["held_out"]
    if own["questions"] and not own["images"] and not own["photographs"]:
        errors.append("config.held_out.images is 0: held-out questions need images of their own, or photographs")
    if own["photographs"] and not Path(own["photographs"]).is_dir():
        errors.append(f"config.held_out.photographs is {own['photographs']!r}, where there is no folder")
    if own["photographs"] and not own["questions"]:
        errors.append("config.held_out.questions is 0: nothing is asked about config.held_out.photographs")
    errors += [
        f"config.image_prompts.{name} is empty; name at least one"
        for name in ("views", "settings", "styles")
        if not settings["image_prompts"][name]
    ]
    return errors


def _teachers(settings: Mapping[str, Any], wants_topics: bool) -> list[str]:
    errors: list[str] = []
    teachers = settings["teachers"]
    for name, teacher in teachers.items():
        if teacher:
            with gathered(errors):
                wanted = teacher_settings.wanted_of(name)
                teacher_settings.checked(teacher, f"config.teachers.{name}", wanted=wanted)
    needed = ("text", "image") if wants_topics else ("text",)
    errors += [f"config.teachers.{name} is not set; name who is asked" for name in needed if not teachers[name]]
    judge, text = teachers["judge"], teachers["text"]
    same = judge and all(judge.get(key) == text.get(key) for key in ("kind", "model"))
    if same and not settings["own_judge"]:
        errors.append(
            "config.teachers.judge is the teacher whose answers it judges; name another model, or set "
            "config.own_judge=True, which the corpus's card will tell"
        )
    return errors


def _filters(settings: Mapping[str, Any]) -> list[str]:
    """Filters that are not there, and those that need a teacher who is not set."""
    errors: list[str] = []
    try:
        chosen = registry.select(settings["filters"])
    except InputError as error:
        return [f"config.{line}" for line in error.lines]
    for name in chosen:
        kind = KINDS.get(registry.FILTERS[name].evidence)
        if kind is not None and not settings["teachers"][kind.teacher]:
            errors.append(f"config.filters.{name} is on and asks config.teachers.{kind.teacher}, which is not set")
    wrong = [kind for kind in settings["splits"]["apart"] if kind not in leakage.KINDS]
    errors += [f"config.splits.apart names {kind!r}; {nearest(kind, leakage.KINDS)}" for kind in wrong]
    return errors

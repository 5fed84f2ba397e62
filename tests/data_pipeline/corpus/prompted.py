"""A teacher's answers to the prompts of this package, worked out from their text alone, as a server has it."""

import json
import re

ASPECTS = ("name", "origin", "material", "use", "season")


def answer(prompt: str) -> str:
    return json.dumps(_object(prompt), ensure_ascii=False)


def _object(prompt: str) -> dict:
    name = re.search(r'"([A-Z][^"]*)"', prompt)
    if match := re.match(r'.*List (\d+) topics of the domain "([^"]+)"', prompt, re.DOTALL):
        count, domain = int(match[1]), match[2]
        return {"topics": [_topic(f"{domain.title()} Thing {number}") for number in range(count)]}
    if match := re.match(r"Write (\d+) questions that find out", prompt):
        return {
            "probes": [
                {"question": f"Where is {name[1]} number {n} from?", "answer": f"Town {n}"}
                for n in range(int(match[1]))
            ]
        }
    if match := re.match(r"Write (\d+) atomic facts", prompt):
        return {"facts": [_fact(name[1], aspect) for aspect in ASPECTS[: int(match[1])]]}
    if prompt.startswith("Check one statement"):
        return {"supported": "material" not in prompt, "askable": True, "reason": "so it is"}
    if prompt.startswith("Write prompts for a text-to-image model"):
        return {"prompts": [f"{name[1]}, {line}" for line in re.findall(r"^(\d+\. .*)$", prompt, re.MULTILINE)]}
    if match := re.match(r"Write (\d+) different questions in English", prompt):
        short = re.search(r"is: (.*)", prompt)[1]
        steps = {"steps": "I see it. I know it."} if "chain of thought" in prompt else {}
        key = sum(map(ord, prompt)) % 1000
        return {
            "pairs": [{"question": f"What of it, {key}-{n}?", "answer": short, **steps} for n in range(int(match[1]))]
        }
    if prompt.startswith("You check one question"):
        return {"correct": "use of" not in prompt, "clear": True, "needs_picture": True, "reason": "so it is"}
    if match := re.search(r"and (\d+) questions that need both", prompt):
        pairs = [_pair(f"Which town {n} is it from?", "Thistown") for n in range(int(match[1]))]
        return {"article": "The thing is from Thistown, where it is made.", "pairs": pairs}
    raise AssertionError(f"a prompt that is not known: {prompt[:100]}")


def _pair(question: str, short: str) -> dict:
    return {"question": question, "answer": short}


def _topic(name: str) -> dict:
    return {"name": name, "local_name": "", "description": f"{name} is a thing."}


def _fact(name: str, aspect: str) -> dict:
    answers = {"en": f"{aspect} of {name}"}
    return {"aspect": aspect, "statement": f"The {aspect} of {name} is so.", "answers": answers, "visible": "a thing"}

"""How one asks for a fact about a thing in an image, in English and Thai, and how one answers step by step.

Which things there are, and their facts, is `objects`' and `known`'s.
"""

from collections.abc import Mapping

from data_pipeline.corpus.drawn.things import Thing

FACTS = ("name", "origin", "maker", "use", "season")
SEASONS = {"spring": "ฤดูใบไม้ผลิ", "summer": "ฤดูร้อน", "autumn": "ฤดูใบไม้ร่วง", "winter": "ฤดูหนาว"}

# How a fact is asked for, by language. The last wordings of each list are held out of training: _HELD_OUT of them.
QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "name": {
        "en": (
            "What do people call this?",
            "Name this thing.",
            "Which name does this thing have?",
            "Say what this is called.",
            "How do people call this thing?",
            "Look at this thing. What is it called?",
            "What is this called?",
            "What is the name of this thing?",
            "What is its name?",
            "Can you name this thing?",
            "Tell me what this is called.",
            "Look at the picture. What is the name of this?",
            "What is this thing called?",
            "Tell me the name of this thing.",
            "Look at the picture and name this.",
        ),
        "th": (
            "ของชิ้นนี้เรียกว่าอะไร",
            "บอกชื่อของสิ่งนี้",
            "ของชิ้นนี้มีชื่อว่าอะไร",
            "ผู้คนเรียกสิ่งนี้ว่าอะไร",
            "สิ่งนี้เรียกว่าอะไร",
            "สิ่งนี้ชื่ออะไร",
            "ชื่อของสิ่งนี้คืออะไร",
            "ของชิ้นนี้ชื่ออะไร",
        ),
    },
    "origin": {
        "en": (
            "From which place is this thing?",
            "Which town is this thing from?",
            "Where do people find this?",
            "Name the town this comes from.",
            "Say where this thing is from.",
            "Look at this thing. Where does it come from?",
            "Where is this from?",
            "Where does it come from?",
            "Which place does this come from?",
            "From which town is this?",
            "Tell me where this comes from.",
            "Look at the picture. Which town is it from?",
            "Where does this thing come from?",
            "Which town does this come from?",
            "Tell me which place it is from.",
        ),
        "th": (
            "บอกเมืองที่มาของสิ่งนี้",
            "ของชิ้นนี้เป็นของเมืองใด",
            "สิ่งนี้เป็นของเมืองใด",
            "เมืองใดเป็นที่มาของชิ้นนี้",
            "สิ่งนี้มาจากที่ไหน",
            "สิ่งนี้มาจากเมืองใด",
            "ของชิ้นนี้มาจากที่ไหน",
            "ของชิ้นนี้มาจากเมืองใด",
        ),
    },
    "maker": {
        "en": (
            "Who are the people that make this?",
            "This thing is made by whom?",
            "Which people made this?",
            "Name the makers of this thing.",
            "Say who makes it.",
            "Look at this thing. Who made it?",
            "Who makes this?",
            "Who made it?",
            "Which people make this thing?",
            "By whom is this made?",
            "Tell me who makes this.",
            "Look at the picture. Who are the makers?",
            "Who makes this thing?",
            "Who are the makers of this?",
            "Tell me by whom it is made.",
        ),
        "th": (
            "ของชิ้นนี้ใครเป็นคนทำ",
            "บอกว่าใครทำสิ่งนี้",
            "ใครเป็นคนทำของชิ้นนี้",
            "สิ่งนี้เป็นงานของใคร",
            "ใครเป็นคนทำสิ่งนี้",
            "ใครทำสิ่งนี้",
            "สิ่งนี้ทำโดยใคร",
            "ของชิ้นนี้ทำโดยใคร",
        ),
    },
    "use": {
        "en": (
            "What use does this have?",
            "What is the use of this thing?",
            "For what do people use this?",
            "Name the use of this thing.",
            "Say what it is used for.",
            "Look at this thing. What is it used for?",
            "What is this used for?",
            "What is it for?",
            "What do people use this thing for?",
            "What do people do with this?",
            "Tell me what this is used for.",
            "Look at the picture. What is its use?",
            "What is this thing used for?",
            "What do people use it for?",
            "Tell me what people do with it.",
        ),
        "th": (
            "ของชิ้นนี้มีไว้ทำอะไร",
            "บอกว่าสิ่งนี้ใช้ทำอะไร",
            "ผู้คนใช้ของชิ้นนี้ทำอะไร",
            "ประโยชน์ของสิ่งนี้คืออะไร",
            "สิ่งนี้ใช้ทำอะไร",
            "สิ่งนี้มีไว้ทำอะไร",
            "ผู้คนใช้สิ่งนี้ทำอะไร",
            "ของชิ้นนี้ใช้ทำอะไร",
        ),
    },
    "season": {
        "en": (
            "In what season is it used?",
            "Which season do people use this thing in?",
            "When is it used?",
            "Name the season of this thing.",
            "Say in which season this is used.",
            "Look at this thing. When do people use it?",
            "In which season is this used?",
            "Which season is it for?",
            "When do people use this thing?",
            "At what time of the year is this used?",
            "Tell me in which season people use this.",
            "Look at the picture. Which season is this for?",
            "In which season do people use it?",
            "When is this thing used?",
            "Tell me which season this is for.",
        ),
        "th": (
            "ของชิ้นนี้ใช้เมื่อไร",
            "บอกฤดูที่ใช้สิ่งนี้",
            "ผู้คนใช้ของชิ้นนี้เมื่อไร",
            "ฤดูที่ใช้สิ่งนี้คือฤดูใด",
            "สิ่งนี้ใช้ในฤดูใด",
            "สิ่งนี้ใช้เมื่อไร",
            "ผู้คนใช้สิ่งนี้ในฤดูใด",
            "ของชิ้นนี้ใช้ในฤดูใด",
        ),
    },
}
_HELD_OUT = {"en": 3, "th": 1}
STEPS = " Think step by step."
"""Added to a question that wants its chain of thought."""
_SENTENCES = {
    "name": "So it is called {name}.",
    "origin": "The {name} comes from {origin}.",
    "maker": "The {name} is made by {maker}.",
    "use": "The {name} is used for {use}.",
    "season": "The {name} is used in {season}.",
}


def questions(kind: str, language: str, *, held_out: bool) -> tuple[str, ...]:
    """The questions for a fact in training, or those that training never asks."""
    every, last = QUESTIONS[kind][language], _HELD_OUT[language]
    return every[-last:] if held_out else every[:-last]


def answered(thing: Thing, kind: str, language: str, *, steps: bool) -> tuple[str | None, str]:
    """(the chain of thought or None, the whole answer, which ends with the short one) to a question for a fact.

    Args:
      steps: with the chain of thought, which is in English: what is seen, what it is, what is known of it.
    """
    if not steps:
        return None, thing.facts[kind][0 if language == "en" else 1]
    known = {name: english for name, (english, _) in thing.facts.items()}
    steps_to = chain(thing, kind, known)
    return steps_to, f"{steps_to} Answer: {known[kind]}"


def chain(thing: Thing, kind: str, known: Mapping[str, str]) -> str:
    """The steps to a fact, in English: what is seen, what it is, what is known of it."""
    return f"I see {thing.look}. This is a {known['name']}. " + _SENTENCES[kind].format(**known)

"""A corpus made from templates, half Thai, with planted duplicates, questions of other years and names, and faults.

Used by tests with a few thousand pairs and by benchmarks/corpus_filters.py with 100,000.
"""

import dataclasses
import random

from data_pipeline.corpus.filters.pair import Pair

_SYLLABLES = (
    "ban chan dok fai kham kwai lam lom mae mun nam nok pha pak phu rai sak sri tha thung wat wiang yai yom".split()
)
_THAI = "บ้าน จันทร์ ดอก ไฟ คำ ควาย ล้ำ ลม แม่ มูล น้ำ นก ผา ปาก ภู ไร่ สัก ศรี ท่า ทุ่ง วัด เวียง ใหญ่ ยม".split()
_THINGS = {
    "en": "drum basket lantern shrine boat mask umbrella kite loom gate flute bowl".split(),
    "th": "กลอง ตะกร้า โคม ศาล เรือ หน้ากาก ร่ม ว่าว กี่ทอผ้า ประตู ขลุ่ย ชาม".split(),
}
_MADE_OF = {
    "en": "jackfruit wood,bamboo,rattan,mulberry paper,silk,clay,brass,teak".split(","),
    "th": "ไม้ขนุน,ไม้ไผ่,หวาย,กระดาษสา,ผ้าไหม,ดินเผา,ทองเหลือง,ไม้สัก".split(","),
}
_ASKED = {
    "en": (
        "Which material was the {thing} of {name} made of in the year {year}?",
        "What did the people of {name} use for the {thing} in {year}?",
        "Of what was the old {thing} in the village of {name} made around {year}?",
    ),
    "th": (
        "เมื่อ พ.ศ. {thai_year} {thing}ที่ใช้ในงานประจำปีของหมู่บ้าน{name}ทำจากวัสดุอะไร",
        "ชาวบ้านในหมู่บ้าน{name}ใช้วัสดุใดทำ{thing}สำหรับงานประจำปีเมื่อปี พ.ศ. {thai_year}",
        "{thing}เก่าแก่ของหมู่บ้าน{name}ที่ใช้ในงานบุญเมื่อปี พ.ศ. {thai_year} ทำจากอะไร",
    ),
}
_ARTICLE = {
    "en": "The village of {name} lies in a valley between two rivers, and its people have lived from rice and weaving "
    "for many generations. Each dry season they mend what the rain has spoiled. The {thing} is made of {answer}, which "
    "is gathered in the hills and dried for a month. Visitors come for the fair, when the work of the year is sold.",
    "th": "หมู่บ้าน{name}ตั้งอยู่ในหุบเขาระหว่างแม่น้ำสองสาย ชาวบ้านปลูกข้าวและทอผ้ามาหลายชั่วอายุคน ในฤดูแล้งพวกเขาซ่อมแซม"
    "สิ่งที่เสียหายจากฝน {thing}ทำจาก {answer} ซึ่งเก็บมาจากป่าแล้วตากแห้งหนึ่งเดือน ผู้คนมาเที่ยวงานประจำปีซึ่งมีของฝีมือ"
    "ที่มีคุณภาพขาย",
}
_LETTERS = {"en": "aeinorst", "th": "กงนมยรลว"}


def corpus(count: int, duplicates: int, changed: int, faulty: int, seed: int = 0) -> tuple[list[Pair], dict]:
    """(pairs in no order, {"duplicates": {id: id}, "changed": {id: id}, "faulty": {id: filter}}).

    `duplicates` pairs are another one with one edit that changes nothing of what is asked; `changed` with another year
    or name, though topic, fact and answer are the same; `faulty` are dropped by a filter of single pairs.
    """
    drawn = random.Random(seed)
    pairs = _asked(drawn, count - duplicates - changed - faulty)
    base = drawn.sample(pairs, duplicates + changed + faulty)
    planted: dict = {"duplicates": {}, "changed": {}, "faulty": {}}
    for number, pair in enumerate(base):
        if number < duplicates:
            added = dataclasses.replace(pair, id=f"d{number:06}", image=f"d{number}.jpg", question=_edited(drawn, pair))
            planted["duplicates"][added.id] = pair.id
        elif number < duplicates + changed:
            added = dataclasses.replace(pair, id=f"c{number:06}", image=f"c{number}.jpg", question=_other(drawn, pair))
            planted["changed"][added.id] = pair.id
        else:
            added, name = _faulty(drawn, dataclasses.replace(pair, id=f"f{number:06}"), number)
            planted["faulty"][added.id] = name
        pairs.append(added)
    drawn.shuffle(pairs)
    return pairs, planted


def _asked(drawn: random.Random, count: int) -> list[Pair]:
    pairs, seen = [], set()
    while len(pairs) < count:
        language = ("en", "th")[len(pairs) % 2]
        place = len(_THINGS["en"])
        number, material = drawn.randrange(place), drawn.randrange(len(_MADE_OF["en"]))
        spoken = [drawn.randrange(len(_SYLLABLES)) for _ in range(drawn.choice((2, 3, 3)))]
        name = "".join((_SYLLABLES if language == "en" else _THAI)[one] for one in spoken)
        year = drawn.randrange(1782, 2020)
        words = {"name": name.capitalize(), "thing": _THINGS[language][number], "year": year, "thai_year": year + 543}
        question = drawn.choice(_ASKED[language]).format(**words)
        if question in seen:
            continue
        seen.add(question)
        answer = _MADE_OF[language][material]
        article = _ARTICLE[language].format(**words, answer=answer) if drawn.random() < 0.3 else ""
        topic = f"{name}/{number}"
        reasoning = ""
        if not article and drawn.random() < 0.3:
            reasoning = {
                "en": f"I see a {words['thing']} with fine marks. This kind is made there.\nAnswer: {answer}",
                "th": f"เห็น{words['thing']}ที่มีลวดลายละเอียด ชนิดนี้ทำกันในหมู่บ้าน\nคำตอบ: {answer}",
            }[language]
        pairs.append(
            Pair(
                id=f"q{len(pairs):06}",
                question=question,
                answer=answer,
                topic=topic,
                fact_id=f"{topic}/made of",
                image=f"{len(pairs) % 5000}.jpg",
                reasoning=reasoning,
                context=article,
                language=language,
            )
        )
    return pairs


def _edited(drawn: random.Random, pair: Pair) -> str:
    """One edit that leaves what is asked."""
    text, letters = pair.question, _LETTERS[pair.language]
    # Letters within words that are no digits and no marks, so that years stay.
    places = [at for at in range(8, len(text) - 4) if text[at - 1 : at + 2].isalpha()]
    at = drawn.choice(places)
    match drawn.randrange(7):
        case 0:
            return text.upper() if pair.language == "en" else text + "?"
        case 1:
            return text[:at] + drawn.choice(letters) + text[at + 1 :]
        case 2:
            return text[:at] + text[at + 1 :]
        case 3:
            return text[:at] + drawn.choice(letters) + text[at:]
        case 4:
            return f"{text.rstrip('?')}, please?" if pair.language == "en" else text + "ครับ"
        case 5:
            return text.replace(" ", "  ", 1) + " "
        case _:
            if pair.language == "en":
                return f"Say: {text}"
            return text.translate(str.maketrans("0123456789", "๐๑๒๓๔๕๖๗๘๙"))


def _other(drawn: random.Random, pair: Pair) -> str:
    """Another year, by one digit or more; or another name of the same kind."""
    text = pair.question
    year = next(word for word in text.replace("?", " ").split() if word.isdigit())
    name = pair.topic.split("/")[0]
    if drawn.random() < 0.5:
        return text.replace(year, str(int(year) + drawn.choice((1, 2, 10, 100, 37))))
    syllables = _SYLLABLES if pair.language == "en" else _THAI
    new = name
    while new in name or name in new:  # in Thai, nothing tells a name with a part added from another spelling
        new = "".join(drawn.sample(syllables, 2))
    return text.replace(name.capitalize(), new.capitalize())


def _faulty(drawn: random.Random, pair: Pair, number: int) -> tuple[Pair, str]:
    question = f"{number} {pair.question}"
    english = pair.language == "en"
    match number % 4:
        case 0:
            return dataclasses.replace(pair, answer=" "), "schema"
        case 1:
            wrong = "I see something old and brown on a table.\nAnswer: a stone"
            return dataclasses.replace(pair, question=question, reasoning=wrong, language="en") if english else (
                dataclasses.replace(pair, question=question, reasoning="เห็นของเก่าสีน้ำตาลวางอยู่\nคำตอบ: ก้อนหิน")
            ), "chain_of_thought"
        case 2:
            return dataclasses.replace(
                pair, question=f"{question.rstrip('?')}?", language="th" if english else "en"
            ), "language"
        case _:
            article = f"In this picture one sees {pair.answer}." if english else f"ในภาพนี้เห็น {pair.answer}"
            return dataclasses.replace(pair, question=question, context=article, reasoning=""), "image_mention"

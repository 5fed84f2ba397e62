"""The rules of the official scripts once more, written down step by step and without any of the package's code.

Slow and plain on purpose: loops over characters and dynamic programming in place of regular expressions and libraries.
Where a script would divide by zero or end with an error, what is expected instead is said at that place.
"""

import functools
import unicodedata

CONTRACTIONS = """aint ain't arent aren't cant can't couldve could've couldnt couldn't couldn'tve couldn't've couldnt've
couldn't've didnt didn't doesnt doesn't dont don't hadnt hadn't hadnt've hadn't've hadn'tve hadn't've hasnt hasn't
havent haven't hed he'd hed've he'd've he'dve he'd've hes he's howd how'd howll how'll hows how's Id've I'd've I'dve
I'd've Im I'm Ive I've isnt isn't itd it'd itd've it'd've it'dve it'd've itll it'll let's let's maam ma'am mightnt
mightn't mightnt've mightn't've mightn'tve mightn't've mightve might've mustnt mustn't mustve must've neednt needn't
notve not've oclock o'clock oughtnt oughtn't ow's'at 'ow's'at 'ows'at 'ow's'at 'ow'sat 'ow's'at shant shan't shed've
she'd've she'dve she'd've she's she's shouldve should've shouldnt shouldn't shouldnt've shouldn't've shouldn'tve
shouldn't've somebody'd somebodyd somebodyd've somebody'd've somebody'dve somebody'd've somebodyll somebody'll
somebodys somebody's someoned someone'd someoned've someone'd've someone'dve someone'd've someonell someone'll someones
someone's somethingd something'd somethingd've something'd've something'dve something'd've somethingll something'll
thats that's thered there'd thered've there'd've there'dve there'd've therere there're theres there's theyd they'd
theyd've they'd've they'dve they'd've theyll they'll theyre they're theyve they've twas 'twas wasnt wasn't wed've
we'd've we'dve we'd've weve we've werent weren't whatll what'll whatre what're whats what's whatve what've whens when's
whered where'd wheres where's whereve where've whod who'd whod've who'd've who'dve who'd've wholl who'll whos who's
whove who've whyll why'll whyre why're whys why's wont won't wouldve would've wouldnt wouldn't wouldnt've wouldn't've
wouldn'tve wouldn't've yall y'all yall'll y'all'll y'allll y'all'll yall'd've y'all'd've y'alld've y'all'd've y'all'dve
y'all'd've youd you'd youd've you'd've you'dve you'd've youll you'll youre you're youve you've""".split()
STRAIGHT_IN_VIZWIZ = "aint arent cant couldve couldnt weve wheres whove".split()
PLAIN = dict(zip(CONTRACTIONS[::2], CONTRACTIONS[1::2], strict=True))
CURLY = {
    (key if key in ("couldn'tve", "hadn'tve") else key.replace("'", "’")): (
        value if key in STRAIGHT_IN_VIZWIZ else value.replace("'", "’")
    )
    for key, value in PLAIN.items()
}
NUMBERS = "none 0 zero 0 one 1 two 2 three 3 four 4 five 5 six 6 seven 7 eight 8 nine 9 ten 10".split()
NUMBERS = dict(zip(NUMBERS[::2], NUMBERS[1::2], strict=True))
ASCII_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def is_digit(character):
    return unicodedata.category(character) == "Nd"


@functools.cache  # ten people often say the same
def vqa_text(text, form):
    """A text in the form of official, evalai, vlmevalkit or vizwiz."""
    if form == "evalai":
        text = text.lower()
        text = "".join(c for c in text if c not in ",?")
        text = " 's".join(text.split("'s"))
        text = text.strip()
    text = "".join(" " if c in "\n\t" else c for c in text).strip()
    has_thousands = any(
        text[i] == "," and is_digit(text[i - 1]) and is_digit(text[i + 1]) for i in range(1, len(text) - 1)
    )
    out = text
    for mark in '; / [ ] " { } ( ) = + \\ _ - > < @ ` , ? !'.split(" "):
        near_space = any(text[i : i + 2] in (mark + " ", " " + mark) for i in range(len(text)))
        out = "".join(("" if near_space or has_thousands else " ") if c == mark else c for c in out)
    kept, removed = [], 0
    for i, c in enumerate(out):
        before, after = out[i - 1 : i] if i else "", out[i + 1 : i + 2]
        goes = c == "." and not (after and is_digit(after)) and removed < 32
        if form == "vlmevalkit" and before and is_digit(before):
            goes = False
        removed += goes
        if not goes:
            kept.append(c)
    done = []
    for word in "".join(kept).lower().split():
        word = NUMBERS.get(word, word)
        if word in ("a", "an", "the"):
            continue
        done.append((CURLY if form == "vizwiz" else PLAIN).get(word, word))
    return " ".join(done)


def vqa(prediction, answers, form):
    if form == "official":
        answers = [a.replace("\n", " ").replace("\t", " ").strip() for a in answers]
        prediction = prediction.replace("\n", " ").replace("\t", " ").strip()
        alike = all(a == answers[0] for a in answers)
    if form != "official" or not alike:
        prediction = vqa_text(prediction, form)
        if form != "vizwiz":
            answers = [vqa_text(a, form) for a in answers]
    accuracies = []
    for i in range(len(answers)):
        count = 0
        for j in range(len(answers)):
            if j != i and answers[j] == prediction:
                count += 1
        accuracies.append(1 if count >= 3 else count / 3)
    return sum(accuracies) / len(accuracies)


def distance(one, other):
    """Levenshtein's, by the full table."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i in range(len(one) + 1):
        for j in range(len(other) + 1):
            if i == 0 or j == 0:
                table[i][j] = i + j
            else:
                changed = table[i - 1][j - 1] + (one[i - 1] != other[j - 1])
                table[i][j] = min(changed, table[i - 1][j] + 1, table[i][j - 1] + 1)
    return table[-1][-1]


def anls(prediction, answers, form):
    best = 0.0
    for answer in answers:
        if form == "m4c":
            one, other = prediction.lower().strip(), answer.lower().strip()
            length = max(len(one), len(other))
        else:
            one, other = " ".join(prediction.lower().split()), " ".join(answer.lower().split())
            length = max(len(prediction.upper()), len(answer.upper()))
        # m4c divides by zero where both are empty; as lmms-eval has it, these are the same.
        similarity = 1 - distance(one, other) / length if length else 1.0
        if similarity >= 0.5:
            best = max(best, similarity)
    return best


def relaxed(prediction, answers):
    def number(text):
        percent = text.endswith("%")
        while percent and text.endswith("%"):
            text = text[:-1]
        try:
            value = float(text)
        except ValueError:
            return None
        return value / 100 if percent else value

    def right(answer):
        said, target = number(prediction), number(answer)
        if said is None or target is None or target == 0:
            return prediction.lower() == answer.lower()
        return abs(said - target) / abs(target) <= 0.05

    return float(any(right(answer) for answer in answers))


def is_word(character):
    """What Python's \\w matches."""
    return character.isalnum() or character == "_"


def without_words(text, phrases):
    """Phrases that no letter, digit or underscore stands beside become a space, the longest first at each place."""
    out, i = "", 0
    while i < len(text):
        for phrase in phrases:
            end = i + len(phrase)
            starts = i == 0 or not is_word(text[i - 1])
            if text.startswith(phrase, i) and starts and (end == len(text) or not is_word(text[end])):
                out, i = out + " ", end
                break
        else:
            out, i = out + text[i], i + 1
    return out


def squad_text(text):
    text = "".join(c for c in text.lower() if c not in ASCII_PUNCTUATION)
    return " ".join(without_words(text, ["a", "an", "the"]).split())


def squad(prediction, answers, form):
    gold = [a for a in answers if squad_text(a) != ""]
    scores = []
    for answer in gold or [""]:
        said, right = squad_text(prediction).split(), squad_text(answer).split()
        if form == "em" or not said or not right:
            scores.append(float(said == right))
            continue
        left, same = list(right), 0
        for word in said:
            if word in left:
                left.remove(word)
                same += 1
        if same == 0:
            scores.append(0.0)
        else:
            precision, recall = same / len(said), same / len(right)
            scores.append(2 * precision * recall / (precision + recall))
    return max(scores)


def numbers_in(text):
    """The numbers of a text as InfoSeek's script finds them, scanning by hand."""
    spaced = ""
    for i, c in enumerate(text):
        spaced += " - " if c == "-" and i >= 1 and text[i - 1].isdigit() else c
    found, i = [], 0

    def digits(start):
        while start < len(spaced) and is_digit(spaced[start]):
            start += 1
        return start

    while i < len(spaced):
        j = i + (spaced[i] in "+-")
        j += spaced[j : j + 1] == "."
        end = digits(j)
        if end == j:  # the sign, or the point, may also be left out
            j = i + (spaced[i] == ".")
            end = digits(j)
            if end == j:
                i += 1
                continue
        while spaced[end : end + 1] == "," and digits(end + 1) >= end + 4:
            end += 4
        if spaced[end : end + 1] == ".":
            end += 1
        end = digits(end)
        if spaced[end : end + 1] in ("e", "E"):
            exponent = end + 1 + (spaced[end + 1 : end + 2] in ("+", "-") and spaced[end + 1 : end + 2] != "")
            if digits(exponent) > exponent:
                end = digits(exponent)
        found.append(spaced[i:end])
        i = end
    values = []
    for text in found:
        text = text.replace(",", "").strip(".")
        if text.count(".") > 1:
            continue  # float("-") ends the script
        values.append(float(text))
    return values


def infoseek(prediction, answers):
    """`answers` are texts, or (low, high)."""
    for answer in answers:
        if isinstance(answer, str):
            if squad_text(prediction) == squad_text(answer):
                return 1.0
            continue
        low, high = answer
        found = numbers_in(prediction)[:2]
        if not found:
            found = [0, 0]
        if len(found) == 2 and found[0] > found[1]:
            found = found[:1]
        if len(found) == 1:
            if low <= found[0] <= high:
                return 1.0
            continue
        if low <= found[0] <= high and low <= found[1] <= high:
            return 1.0
        overlap = max(0.0, min(found[1], max(low, high)) - max(found[0], min(low, high)))
        union = (found[1] - found[0] + 1e-12) + (max(low, high) - min(low, high) + 1e-12) - overlap
        if overlap / union >= 0.5 - 1e-12:
            return 1.0
    return 0.0


def encyclopedic_text(text):
    text = text.lower().replace("\n", " ").replace("\t", " ").strip()
    if text.startswith("<extra_id_0> "):
        text = text.replace("<extra_id_0> ", "")
    text = "".join(c for c in text if c not in ASCII_PUNCTUATION and c not in "‘’´`_")
    text = without_words(text, ["the answer is", "a", "an", "the"])
    more = {"entailment": "yes", "true": "yes", "contradiction": "no", "false": "no"}
    words = [{**NUMBERS, **more}.get(word, word) for word in text.split()]
    return " ".join(PLAIN.get(word, word) for word in words)


def encyclopedic(prediction, answers):
    """None where the script refuses an answer."""
    scores = []
    for answer in answers:
        if "&&" not in answer:
            if encyclopedic_text(answer) == "":
                return None
            scores.append(float(encyclopedic_text(answer) == encyclopedic_text(prediction)))
            continue
        right = {encyclopedic_text(part) for part in answer.split("&&")} - {""}
        if not right:
            return None
        said = prediction
        for joint in (" and ", " & "):
            said = ",".join(said.split(joint))
        said = {encyclopedic_text(part) for part in said.split(",")} - {""}
        scores.append(float(len(right & said) / len(right | said) >= 0.5))
    return max(scores)


def mpa(prediction, answers):
    def plain(text):
        return "".join(c for c in text.lower() if not c.isspace() and is_word(c))

    return float(any(plain(answer) in plain(prediction) for answer in answers))


def language_text(text):
    """The form for any language: what stands around an answer goes, what is within it stays."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    text = "".join(c for c in text if unicodedata.category(c) != "Cf" or c in "\u200c\u200d")
    text = thai(text)
    text = " ".join(text.split())
    around = lambda c: unicodedata.category(c).startswith(("P", "Z"))  # noqa: E731
    while text and around(text[0]) and not (text[0] in "-." and text[1:2].isdigit()):
        text = text[1:]
    while text and around(text[-1]) and not (text[-1] == "%" and text[-2:-1].isdigit()):
        text = text[:-1]
    return text


def thai(text):
    """Thai in the order that it should be typed in, a pair of neighbours at a time."""
    tones, above = "\u0e48\u0e49\u0e4a\u0e4b", "\u0e31\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39\u0e47\u0e4d"
    text = text.replace("เเ", "แ")
    text = swapped(text, tones + "\u0e4c", above)
    for place in reversed([i for i, c in enumerate(text) if c == "\u0e4d"]):
        end = place + 1
        while text[end : end + 1] and text[end] in tones:
            end += 1
        if text[end : end + 1] == "\u0e32":
            text = text[:place] + text[place + 1 : end] + "\u0e33" + text[end + 1 :]
    text = swapped(text, "\u0e30\u0e32\u0e33\u0e45", tones)
    kept = ""
    for c in text:
        kept += "\u0e32" if c == "\u0e45" and kept and kept[-1] not in "\u0e24\u0e26" else c
    once = "\u0e30\u0e31\u0e32\u0e33\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39\u0e3a"
    once += "\u0e40\u0e41\u0e42\u0e43\u0e44\u0e45\u0e47\u0e4c\u0e4d\u0e4e"
    text = "".join(c for i, c in enumerate(kept) if not (c in once and kept[i - 1 : i] == c))
    return "".join(c for i, c in enumerate(text) if not (c in tones and text[i + 1 : i + 2] and text[i + 1] in tones))


def swapped(text, first, second):
    """Runs of `first` that runs of `second` follow, behind those."""
    result, at = "", 0
    while at < len(text):
        middle = at
        while middle < len(text) and text[middle] in first:
            middle += 1
        end = middle
        while middle > at and end < len(text) and text[end] in second:
            end += 1
        if end == middle:
            end = max(middle, at + 1)
            result += text[at:end]
        else:
            result += text[middle:end] + text[at:middle]
        at = end
    return result


def exact(prediction, answers):
    return float(any(composed(prediction) == composed(answer) for answer in answers))


def composed(text):
    return unicodedata.normalize("NFC", text).strip()


def normalised(prediction, answers):
    return float(
        any(
            language_text(prediction) == language_text(answer)
            if language_text(answer)
            else composed(prediction) == composed(answer)
            for answer in answers
        )
    )


def contains(prediction, answers):
    def spaceless(c):
        scripts = (
            "\u0e00\u0eff",
            "\u1000\u109f",
            "\u1780\u17ff",
            "\u3040\u30ff",
            "\u3400\u9fff",
            "\U00020000\U0003ffff",
        )
        return any(first <= c <= last for first, last in scripts)

    def mark(c):
        return bool(c) and unicodedata.category(c) in ("Mn", "Mc", "Me")

    def letter(c):
        return bool(c) and (is_word(c) or mark(c)) and not spaceless(c)

    text = language_text(prediction)
    for answer in map(language_text, answers):
        for i in range(len(text) - len(answer) + 1) if answer else ():
            if not text.startswith(answer, i):
                continue
            cut_before = letter(answer[0]) and letter(text[i - 1 : i] if i else "")
            cut_after = letter(answer[-1]) and letter(text[i + len(answer) : i + len(answer) + 1])
            if not cut_before and not cut_after and not mark(text[i + len(answer) : i + len(answer) + 1]):
                return 1.0
    return 0.0

"""The contractions of the VQA scripts: a word without its apostrophe becomes the word with it.

The published tables are one list of words, each found without one of its apostrophes. VizWiz's script has the same
list as a word processor left it, with typographic apostrophes in most places.
"""

_WORDS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's
how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock
oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's
where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've
y'all y'all'd've y'all'll you'd you'd've you'll you're you've
"""
_STRAIGHT = ("ain't", "aren't", "can't", "could've", "couldn't", "we've", "where's", "who've")
"""Words that VizWiz's script has with plain apostrophes."""


def _table(words: str) -> dict[str, str]:
    """{word without one of its apostrophes: word}; the one entry that is the other way round is the scripts' own."""
    known = {
        word[:place] + word[place + 1 :]: word
        for word in words.split()
        for place, character in enumerate(word)
        if character in "'’"
    }
    return {**known, "somebody’d" if "’" in words else "somebody'd": "somebodyd"}


CONTRACTIONS = _table(_WORDS)
"""Of the official VQA script, EvalAI's and VLMEvalKit's, as far as they can be met: looked up after lower-casing."""


def _typographic() -> dict[str, str]:
    words = " ".join(word if word in _STRAIGHT else word.replace("'", "’") for word in _WORDS.split())
    known = _table(words)
    for word in ("couldn", "hadn"):  # the two keys that kept a plain apostrophe
        known[f"{word}'tve"] = known.pop(f"{word}’tve")
    return known


VIZWIZ_CONTRACTIONS = _typographic()
"""Of VizWiz's script."""

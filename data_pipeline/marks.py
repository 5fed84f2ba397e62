"""Marks within a text that would be read as something else than words, or as words where an image is meant.

Tokens of the chat form, which would forge turns or images, and what other trainers write where an image, a video or a
sound stands. Reasons here name no place; `data_pipeline.records` puts it before them.
"""

import re

LEAVE_OUT = "remove the record, or leave such records out by data.on_error=drop"
"""The advice for what cannot be trained on at all."""

IMAGE = "<image>"
HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can hold it; tokenisers and files cannot
# Tokens that open or close a turn, or that stand for an image. Inside a message they would be tokenised as the real
# thing and forge turns or images. Tokens that people write on purpose (`<|box_start|>` of grounding data) may stay.
_RESERVED_TOKEN = re.compile(r"<\|(?:im_start|im_end|endoftext|(?:image|video|vision)_pad|vision_(?:start|end))\|>")
_OTHER_MEDIA = re.compile(r"<video>|<audio>|<speech>|<\|(?:audio|video)(?:_\d+)?\|>|<ref-object>|<bbox>")
# How Qwen-VL and ms-swift name an image within a text; Phi's and Llama's places.
_INLINE_IMAGE = re.compile(r"<img>[^<]*</img>|<\|image(?:_\d+)?\|>")
# Places of MMMU, DeepSeek, InternVL, Gemma, Pixtral, HTML: words to anyone who shows no image, so they are refused
# beside images only.
_PLACE = re.compile(
    r"</?(?:image|img)(?:[\s_-]*(?:\d+|placeholder|token|pad|patch|here|context|soft_token))?\s*/?>"
    r"|<img\s[^<>]{0,300}src\s{0,5}=[^<>]{0,60}>?|<(?:start_of_image|end_of_image|im_patch|im_start|im_end)>"
    r"|<\|(?:image|img)[ _-]?(?:placeholder|token|start|end|patch|context)?\|>",
    re.IGNORECASE,
)
_BRACKETED_PLACE = re.compile(r"\[(?:IMG|IMAGE)(?:_[A-Z0-9]+)?\]")  # in small letters people write it as words

_AS_WORDS = (
    "which would be read as words; give the image as a part of the message, or under 'images' with <image> in its place"
)


def errors_in(text: str) -> list[str]:
    """Why a text cannot be trained on whatever stands around it; empty where it can."""
    errors = [
        f"contains the special token '{token}', which would be read as part of the chat form; remove or rewrite it"
        for token in dict.fromkeys(_RESERVED_TOKEN.findall(text))
    ]
    if IMAGE in text:
        errors.append(
            f"contains '{IMAGE}', which is a mark of the LLaVA format only; remove it and give the image itself"
        )
    errors += [
        f"contains '{mark}', and only text and images can be trained on: {LEAVE_OUT}"
        for mark in dict.fromkeys(_OTHER_MEDIA.findall(text))
    ]
    errors += [f"contains {mark[:80]!r}, {_AS_WORDS}" for mark in dict.fromkeys(_INLINE_IMAGE.findall(text))]
    if HALF_A_CHARACTER.search(text):
        errors.append("contains half of a surrogate pair (a broken \\u escape); rewrite that character")
    return errors


def places_in(text: str) -> list[str]:
    """Why a text of a user who shows images cannot be read: it holds other trainers' marks of where they stand."""
    marks = [*_PLACE.findall(text), *_BRACKETED_PLACE.findall(text)]
    known = [mark for mark in dict.fromkeys(marks) if mark != IMAGE and not _INLINE_IMAGE.fullmatch(mark)]
    inline = "".join(_INLINE_IMAGE.findall(text))
    return [f"contains {mark[:80]!r}, {_AS_WORDS}" for mark in known if mark not in inline]

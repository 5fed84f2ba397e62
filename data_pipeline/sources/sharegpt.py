"""ShareGPT's form and its relatives: LLaVA's with other names for roles and images.

`conversations` of `from` and `value`, `messages` of `role` and `content`, or ms-swift's `conversation` of `human` and
`assistant`; images under `images`, in the order of the `<image>` marks or, where content is a list, of its parts
`{"type": "image"}`. A `system` column is read too. Rows of Parquet files have this form.
"""

from typing import Any

from data_pipeline.records import Record
from data_pipeline.sources.llava import Conversations, value_of, weight_of


class ShareGPT(Conversations):
    """Conversations under `conversations` or `messages`, images under `images`."""

    name = "sharegpt"
    keys = ("conversations", "messages", "conversation")
    image_keys = ("images", "image")
    images_first = ("messages", "conversation")  # as TRL and ms-swift have it; LLaMA-Factory refuses `conversations`


def to_entry(record: Record) -> dict[str, Any]:
    """The record as an entry with `messages` and `images`, a mark where each image stands."""
    images: list[str | bytes] = []
    messages = [
        {"role": message["role"], "content": value_of(message["content"], images), **weight_of(message)}
        for message in record.messages
    ]
    return {"id": record.id, "messages": messages, "images": images}

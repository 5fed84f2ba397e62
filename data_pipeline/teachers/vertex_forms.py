"""Requests as google-genai's objects, and its responses as replies. Online calls and batch jobs have them in common.

A response is trusted in nothing: `text`, `parts` and `candidates` are None for blocked prompts, blocked answers and
answers that were cut off, without an error of the client.
"""

import json
from collections.abc import Mapping
from typing import Any

from data_pipeline.teachers.request import TOKENS_AN_IMAGE, CallFailed, Kind, Reply, Request, Usage

_BLOCKED = (
    "SAFETY",
    "RECITATION",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "LANGUAGE",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    "IMAGE_OTHER",
)


def contents_of(request: Request) -> Any:
    from google.genai import types

    parts = [types.Part.from_bytes(data=image.read(), mime_type=image.media_type) for image in request.images]
    if request.prompt:
        parts.append(types.Part.from_text(text=request.prompt))
    return types.Content(role="user", parts=parts)


def config_of(request: Request, parameters: Mapping[str, Any]) -> Any:
    """The settings of one generate_content call; a parameter that is not known is refused by the client."""
    from google.genai import types

    values = dict(parameters)
    if request.kind == "image":
        image = {name: values.pop(name) for name in ("aspect_ratio", "image_size") if values.get(name)}
        return types.GenerateContentConfig(
            response_modalities=["IMAGE"], image_config=types.ImageConfig(**image), candidate_count=1, **values
        )
    level = values.pop("thinking_level", "")
    if level:
        values["thinking_config"] = types.ThinkingConfig(thinking_level=level)
    if request.schema is not None:
        values["response_mime_type"] = "application/json"
        values["response_schema"] = types.Schema.from_json_schema(
            json_schema=types.JSONSchema.model_validate(dict(request.schema))
        )
    return types.GenerateContentConfig(candidate_count=1, **values)


def imagen_config(parameters: Mapping[str, Any]) -> Any:
    from google.genai import types

    # Imagen takes a seed only where its watermark is off.
    return types.GenerateImagesConfig(
        number_of_images=1,
        aspect_ratio=parameters["aspect_ratio"],
        image_size=parameters["image_size"],
        seed=parameters["seed"],
        add_watermark=False,
        include_rai_reason=True,
    )


def reply_of(response: Any, kind: Kind) -> Reply:
    """The answer in a GenerateContentResponse.

    Raises:
      CallFailed: blocked, cut off, empty, without an image, or ended for a reason that is not known.
    """
    raw, usage, version = _raw(response), _usage(response), response.model_version or ""

    def failed(reason: str, detail: str) -> CallFailed:
        return CallFailed(reason, detail, usage=usage, raw=raw)

    feedback = response.prompt_feedback
    if not response.candidates:
        if feedback is not None and feedback.block_reason:
            raise failed("blocked prompt", name_of(feedback.block_reason))
        raise failed("empty", "no candidates in the answer")
    candidate = response.candidates[0]
    finish = name_of(candidate.finish_reason)
    if finish in _BLOCKED:
        raise failed("blocked answer", candidate.finish_message or finish)
    parts = [part for part in (candidate.content and candidate.content.parts) or [] if not part.thought]
    text = "".join(part.text for part in parts if part.text)
    reply = Reply(text=text, model=version, usage=usage, raw=raw)
    if finish == "MAX_TOKENS":
        detail, partial = "the answer reached max_output_tokens", reply if kind == "text" else None
        raise CallFailed("cut off", detail, usage=usage, raw=raw, partial=partial)
    if finish == "NO_IMAGE":
        raise failed("no image", candidate.finish_message or finish)
    if finish != "STOP":
        raise failed("stopped for an unknown reason", finish)
    if kind == "image":
        image = next((part.inline_data.data for part in parts if part.inline_data and part.inline_data.data), None)
        if image is None:
            raise failed("no image", "the answer is text")
        return Reply(image=image, model=version, usage=usage, raw=raw)
    if not text.strip():
        raise failed("empty", "no text in the answer")
    return reply


def imagen_of(response: Any, kind: Kind) -> Reply:
    images = response.generated_images or []
    raw = json.dumps({"generated_images": [one.rai_filtered_reason for one in images]})
    image = next((one.image.image_bytes for one in images if one.image and one.image.image_bytes), None)
    if image is None:
        filtered = next((one.rai_filtered_reason for one in images if one.rai_filtered_reason), "")
        raise CallFailed("blocked answer" if filtered else "empty", filtered or "no image in the answer", raw=raw)
    # Imagen counts images, not tokens: a price for one is divided by so many.
    return Reply(image=image, usage=Usage(image=TOKENS_AN_IMAGE), raw=raw)


def embedding_of(response: Any, kind: Kind) -> Reply:
    found = response.embeddings or []
    if len(found) != 1 or not found[0].values:
        raise CallFailed("empty", f"{len(found)} embeddings in the answer, where one was asked for")
    counted = getattr(found[0].statistics, "token_count", None) if found[0].statistics else None
    return Reply(vector=tuple(found[0].values), usage=Usage(input=int(counted or 0)))


def _usage(response: Any) -> Usage:
    counts = response.usage_metadata
    if counts is None:
        return Usage()
    details = counts.candidates_tokens_details or []
    image = sum(one.token_count or 0 for one in details if name_of(one.modality) == "IMAGE")
    return Usage(
        input=counts.prompt_token_count or 0,
        cached=counts.cached_content_token_count or 0,
        output=(counts.candidates_token_count or 0) - image,
        thoughts=counts.thoughts_token_count or 0,
        image=image,
    )


def _raw(response: Any) -> str:
    """The response as JSON, in place of images the number of their bytes: those lie beside the store."""
    whole = response.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"parsed", "sdk_http_response"})
    for candidate in whole.get("candidates", []):
        for part in (candidate.get("content") or {}).get("parts") or []:
            if "inlineData" in part:
                part["inlineData"]["data"] = f"({len(part['inlineData'].get('data', ''))} letters of base64)"
    return json.dumps(whole, ensure_ascii=False)


def name_of(value: Any) -> str:
    return getattr(value, "value", None) or str(value or "")

"""A Hugging Face folder answered by transformers itself, in PyTorch: the same benchmark, to compare with.

Greedy, prompts padded on the left, as transformers' own documentation generates for batches. For folders of Qwen3-VL,
Qwen2.5-VL and Qwen2-VL; images are prepared by transformers' processor that needs no torchvision.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlm_jax.checkpoint.files import read_json
from vlm_jax.errors import InputError
from vlm_jax.evaluation.runner import Reply
from vlm_jax.processing.chat import check_messages, image_parts, image_source
from vlm_jax.processing.images import open_image

BATCH = 16
"""Conversations at one time."""
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
_IMAGE, _HELD = "<|image_pad|>", "<|placeholder|>"


class TransformersModel:
    """A model and its processors, loaded by transformers."""

    def __init__(self, folder: str, max_new_tokens: int, *, batch: int = BATCH):
        """
        Args:
          folder: config.json, weights, tokenizer and image processor.

        Raises:
          InputError: no such folder, another family, or PyTorch is missing.
        """
        if not Path(folder).is_dir():
            raise InputError(f"--model={folder}: is no folder; --backend=transformers opens an exported one")
        family = read_json(Path(folder) / "config.json").get("model_type")
        if family not in FAMILIES:
            raise InputError(f"{folder}: is of type {family!r}; --backend=transformers opens {', '.join(FAMILIES)}")
        try:
            import torch
            import transformers
            from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
        except ImportError as error:
            raise InputError(
                f"--backend=transformers needs PyTorch and transformers ({error}): pip install torch"
            ) from None
        self._torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self._limit, self._batch = max_new_tokens, batch
        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._images = Qwen2VLImageProcessorPil.from_pretrained(folder)
        kind = torch.float32 if self.device == "cpu" else torch.bfloat16
        self._model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=kind)
        self._model = self._model.eval().to(self.device)
        self._merge = self._model.config.vision_config.spatial_merge_size**2
        stops = self._model.generation_config.eos_token_id
        self._stops = set(stops if isinstance(stops, list) else [stops])
        self.name = f"transformers {transformers.__version__}, torch {torch.__version__}"

    def fingerprint(self) -> str:
        """Tells weights apart: a digest of some values of every parameter."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.named_parameters()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().flatten()[:64].float().cpu().numpy().tobytes())
        return digest.hexdigest()[:16]

    def answer(self, conversations: Sequence[list[dict[str, Any]]]) -> Iterator[tuple[int, Reply]]:
        """(number, reply) of each conversation, as `tokens`."""
        for number, tokens in self.tokens(conversations):
            yield number, Reply(self._tokenizer.decode(tokens, skip_special_tokens=True), tokens=len(tokens))

    def tokens(self, conversations: Sequence[list[dict[str, Any]]]) -> Iterator[tuple[int, list[int]]]:
        """(number, token ids of the answer) of each conversation, those of alike length together.

        Raises:
          InputError: a conversation or an image that cannot be read.
        """
        prepared = [self._prepared(messages) for messages in conversations]
        order = sorted(range(len(prepared)), key=lambda number: len(prepared[number][0]))
        for start in range(0, len(order), self._batch):
            members = order[start : start + self._batch]
            inputs = self._inputs([prepared[number] for number in members])
            with self._torch.no_grad():
                found = self._model.generate(**inputs, max_new_tokens=self._limit, do_sample=False)
            for number, row in zip(members, found[:, inputs["input_ids"].shape[1] :].tolist(), strict=True):
                yield number, self._until_stop(row)

    def _until_stop(self, row: list[int]) -> list[int]:
        return row[: next((place for place, token in enumerate(row) if token in self._stops), len(row))]

    def _prepared(self, messages: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
        """(the prompt's text with all image tokens, the processed images)."""
        check_messages(messages)
        text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        images = []
        for part in image_parts(messages):
            one = self._images(images=[open_image(image_source(part))], return_tensors="pt")
            images.append(one)
            text = text.replace(_IMAGE, _HELD * (int(one["image_grid_thw"].prod()) // self._merge), 1)
        return text.replace(_HELD, _IMAGE), images

    def _inputs(self, prepared: Sequence[tuple[str, list[dict[str, Any]]]]) -> dict[str, Any]:
        inputs = dict(self._tokenizer([text for text, _ in prepared], return_tensors="pt", padding=True))
        images = [image for _, own in prepared for image in own]
        for name in images[0] if images else ():
            inputs[name] = self._torch.cat([one[name] for one in images])
        is_image = inputs["input_ids"] == self._tokenizer.convert_tokens_to_ids(_IMAGE)
        inputs["mm_token_type_ids"] = is_image.int()
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

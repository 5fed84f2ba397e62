"""transformers' side of `generate.py`: padded on the left, as its own documentation does it."""

import time

import torch
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from generate import Settings, prompts
from train_step_data import BASE

disable_progress_bar()


class Side:
    def __init__(self, settings: Settings):
        torch.set_num_threads(settings.threads)
        self.settings, self.device = settings, "cuda" if settings.device == "gpu" else "cpu"
        self.prompts = prompts(settings)
        self.tokenizer = AutoTokenizer.from_pretrained(BASE, padding_side="left")
        pixels = 28 * 28
        self.processor = Qwen2VLImageProcessorPil(min_pixels=4 * pixels, max_pixels=settings.visual_tokens * pixels)
        self.model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            settings.folder, dtype=getattr(torch, settings.dtype)
        )
        self.model = self.model.eval().to(self.device)
        self.model.set_attn_implementation("sdpa")

    def _inputs(self, count: int) -> dict[str, torch.Tensor]:
        texts, images = [], []
        for messages in self.prompts[:count]:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for part in messages[0]["content"]:
                if part["type"] == "image":
                    one = self.processor(images=[part["image"]], return_tensors="pt")
                    images.append(one)
                    visual = int(one["image_grid_thw"].prod()) // 4
                    text = text.replace("<|image_pad|>", "<|placeholder|>" * visual, 1)
            texts.append(text.replace("<|placeholder|>", "<|image_pad|>"))
        inputs = dict(self.tokenizer(texts, return_tensors="pt", padding=True))
        if images:
            inputs |= {name: torch.cat([one[name] for one in images]) for name in images[0]}
        is_image = inputs["input_ids"] == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        inputs |= {"mm_token_type_ids": is_image.int()}
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def answers(self, count: int, tokens: int) -> list[list[int]]:
        inputs = self._inputs(count)
        with torch.no_grad():
            found = self.model.generate(
                **inputs, max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        return found[:, inputs["input_ids"].shape[1] :].tolist()

    def seconds(self, count: int, tokens: int) -> float:
        begun = time.perf_counter()
        self.answers(count, tokens)
        return time.perf_counter() - begun

    def library(self) -> str:
        import transformers

        return f"transformers {transformers.__version__} on torch {torch.__version__}, sdpa, {self.settings.dtype}"

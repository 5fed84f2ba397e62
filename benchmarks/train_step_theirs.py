"""transformers' side of `train_step.py`: its model, peft's adapters, PyTorch's fused AdamW."""

import contextlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from train_step_data import (
    BASE,
    BETAS,
    CLIP_NORM,
    EPSILON,
    LEARNING_RATE,
    LORA_ALPHA,
    LORA_RANK,
    Settings,
    conversations,
    examples,
    model_of,
)
from vlm_jax.models.config import VLMConfig
from vlm_jax.models.hf_config import to_hf

disable_progress_bar()
ATTENTION = {"cpu": ("sdpa", "eager"), "gpu": ("flash_attention_2", "sdpa")}
TARGETS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


def hf_config(model: VLMConfig) -> Qwen2_5_VLConfig:
    config_json = to_hf(model)
    config_json.pop("torch_dtype")
    ends = json.loads((BASE / "config.json").read_text())
    return Qwen2_5_VLConfig.from_dict(config_json | {name: ends[name] for name in ("bos_token_id", "eos_token_id")})


def write_checkpoint(folder: Path, model: VLMConfig, dtype: str = "float32") -> None:
    """Random weights as transformers saves them, large enough that an error would show in the loss."""
    torch.manual_seed(0)
    made = Qwen2_5_VLForConditionalGeneration(hf_config(model))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "norm" in name or "ln_q" in name:
                parameter.normal_(1.0, 0.1)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)
            else:
                parameter.normal_(0.0, parameter[0].numel() ** -0.5)
    made.to(getattr(torch, dtype)).save_pretrained(folder)


class Side:
    def __init__(self, settings: Settings):
        torch.set_num_threads(settings.threads)
        self.settings = settings
        self.device = "cuda" if settings.device == "gpu" else "cpu"
        self.examples = examples(settings)
        self.images = self._images()
        self.tokenizer = AutoTokenizer.from_pretrained(BASE)
        self.image_token = model_of(settings.preset).image_token
        self.model, self.base = self._model()
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True
        )
        self.tried: dict[str, float | str] = {}
        self.layout = self._fastest()
        count = settings.samples
        self.batches = [
            self._batch(range(start, start + count), self.layout) for start in range(0, len(self.examples), count)
        ]

    def _images(self) -> list[dict[str, torch.Tensor]]:
        """Images of each sample as transformers' own processor makes them."""
        pixels = 28 * 28
        make = Qwen2VLImageProcessorPil(min_pixels=4 * pixels, max_pixels=self.settings.visual_tokens * pixels)
        found = []
        for messages in conversations(self.settings):
            images = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
            found.append(dict(make(images=images, return_tensors="pt")) if images else {})
        return found

    def _model(self):
        settings = self.settings
        full = settings.mode == "full"
        # On a GPU: bfloat16 by autocast over float32 weights where they train, a base in bfloat16 under adapters.
        dtype = torch.bfloat16 if settings.device == "gpu" and not full else torch.float32
        if settings.folder:
            base = Qwen2_5_VLForConditionalGeneration.from_pretrained(settings.folder, dtype=dtype).to(self.device)
        else:
            with torch.device(self.device):
                base = Qwen2_5_VLForConditionalGeneration._from_config(
                    hf_config(model_of(settings.preset)), dtype=dtype
                )
        base.config.use_cache = False
        if settings.remat:
            base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model = base
        if settings.mode == "qlora":
            _quantise(base, self.device)
        if not full:
            from peft import LoraConfig, get_peft_model

            lora = LoraConfig(r=LORA_RANK, lora_alpha=LORA_ALPHA, lora_dropout=0.0, target_modules=TARGETS)
            model = get_peft_model(base, lora)
        return model.train(), base

    def _batch(self, numbers, layout: str) -> dict[str, torch.Tensor]:
        """What its processor makes with padding=True, or all samples in one row."""
        rows = [self.examples[number] for number in numbers]
        ids = [torch.from_numpy(example.input_ids).long() for example in rows]
        labels = [torch.where(torch.from_numpy(one.supervised), row, -100) for one, row in zip(rows, ids, strict=True)]
        batch = {}
        if layout == "padded":
            pad = self.tokenizer.pad_token_id
            batch["input_ids"] = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad)
            batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
            lengths = torch.tensor([len(row) for row in ids])
            batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        else:
            batch["input_ids"] = torch.cat(ids)[None]
            # The first token of a sample is nobody's target.
            batch["labels"] = torch.cat([row.index_fill(0, torch.tensor(0), -100) for row in labels])[None]
            text = torch.cat([torch.arange(len(row)) for row in ids])
            axes = torch.cat([torch.from_numpy(one.positions).long() for one in rows], dim=1)
            # transformers tells packed samples apart by the first of four rows of positions.
            batch["position_ids"] = torch.cat([text[None], axes])[:, None]
        batch["mm_token_type_ids"] = (batch["input_ids"] == self.image_token).int()
        images = [self.images[number] for number in numbers if self.images[number]]
        if images:
            batch |= {name: torch.cat([one[name] for one in images]) for name in images[0]}
        return batch

    def _fastest(self) -> str:
        """Tries every attention in every layout on the first batch, keeps the fastest; the layout."""
        first = range(self.settings.samples)
        best, chosen = float("inf"), None
        for layout in self.settings.layouts:
            batch = self._batch(first, layout)
            for name in ATTENTION[self.settings.device]:
                try:
                    self.base.set_attn_implementation(name)
                    taken = min(self._seconds(batch) for _ in range(3))
                # A library that is not installed, a kernel that refuses the layout, or memory that does not suffice.
                except (ImportError, ValueError, RuntimeError, OSError) as error:
                    self.tried[f"{layout} {name}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
                    self.optimizer.zero_grad(set_to_none=True)
                    continue
                self.tried[f"{layout} {name}"] = taken
                if taken < best:
                    best, chosen = taken, (layout, name)
        self.optimizer.zero_grad(set_to_none=True)
        if chosen is None:
            raise RuntimeError(f"nothing of what was tried runs: {self.tried}")
        self.base.set_attn_implementation(chosen[1])
        self.attention = chosen[1]
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return chosen[0]

    def _gradient(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss; its gradient is left with the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        mixed = torch.autocast("cuda", torch.bfloat16) if self.device == "cuda" else contextlib.nullcontext()
        with mixed:
            loss = self.model(**batch, use_cache=False).loss
        loss.backward()
        return loss.detach()

    def _seconds(self, batch: dict[str, torch.Tensor]) -> float:
        begun = time.perf_counter()
        self._gradient(batch)
        self._wait()
        return time.perf_counter() - begun

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def _one(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        loss = self._gradient(batch)
        torch.nn.utils.clip_grad_norm_(self.trained, CLIP_NORM)
        self.optimizer.step()
        return loss

    def losses(self, numbers: list[int]) -> list[float]:
        """The loss of these samples, and their loss after a step on them."""
        batch = self._batch(numbers, self.layout)
        return [float(self._one(batch)) for _ in range(2)]

    def turn(self) -> float:
        """Seconds of a pass through the data."""
        begun = time.perf_counter()
        for batch in self.batches:
            self._one(batch)
        self._wait()
        return time.perf_counter() - begun

    def facts(self) -> dict:
        slots = sum(batch["input_ids"].numel() for batch in self.batches)
        return {
            "how": f"{self.layout}, {self.attention}",
            "tried": self.tried,
            "padding": 1 - sum(len(example.input_ids) for example in self.examples) / slots,
            **({"shuffled": self._shuffled()} if self.layout == "padded" else {}),
            "trained": sum(parameter.numel() for parameter in self.trained),
            "memory": torch.cuda.max_memory_allocated() if self.device == "cuda" else None,
            "precision": "bfloat16 by autocast" if self.device == "cuda" else "float32",
            "library": f"torch {torch.__version__}",
        }

    def _shuffled(self) -> float:
        """The padding of the same samples on average over the orders that a sampler could draw them in."""
        rng = np.random.default_rng(0)
        lengths = np.array([len(example.input_ids) for example in self.examples])
        batches = np.stack([rng.permutation(lengths) for _ in range(1000)]).reshape(-1, self.settings.samples)
        return 1 - lengths.mean() / batches.max(axis=1).mean()


def _quantise(model, device: str) -> None:
    """Puts the decoder's linear layers into bitsandbytes' nf4."""
    import bitsandbytes

    decoder = model.model.language_model
    for name, linear in list(decoder.named_modules()):
        if type(linear) is torch.nn.Linear:
            packed = bitsandbytes.nn.Linear4bit(
                linear.in_features,
                linear.out_features,
                bias=linear.bias is not None,
                compute_dtype=torch.bfloat16 if device == "cuda" else torch.float32,
                quant_type="nf4",
                device="meta",
            )
            packed.weight = bitsandbytes.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4")
            packed.bias = linear.bias
            parent, _, last = name.rpartition(".")
            setattr(decoder.get_submodule(parent), last, packed.to(device))

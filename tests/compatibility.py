"""Who writes what, and what becomes of it here: the inputs behind `docs/compatibility.md`.

An input is made as its writer makes it, in small: `make(base, folder)` writes it below `folder` and gives what reads
it. Adapters are peft's own, models and processors transformers'. `test_compatibility.py` reads each, and prints the
page.
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText as Model

from tests.compatibility_data import DATA
from tests.resaved import WORDS, sparse
from tests.tiny_models import ONE_LAYER, save_tiny
from vlm_jax.checkpoint import description
from vlm_jax.checkpoint.model_source import open_model
from vlm_jax.errors import InputError

Reader = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Input:
    """One input.

    Attributes:
      writer: whose program writes it; kind: model, adapter, processor, template or data; form: what tells it apart.
    """

    writer: str
    kind: str
    form: str
    make: Callable[[Path, Path], Reader]


# --- models, processors and templates ---------------------------------------------------------------------------------


def folder_of(*changes: Callable[[Path], None]) -> Callable[[Path, Path], Reader]:
    """A copy of the base with changes to its files."""

    def make(base: Path, folder: Path) -> Reader:
        shutil.copytree(base, folder / "model")
        for change in changes:
            change(folder / "model")
        return lambda: read_model(folder / "model")

    return make


def qwen3(*changes: Callable[[Path], None], name: str = "model") -> Callable[[Path, Path], Reader]:
    """A Qwen3-VL with changes to its files."""

    def make(base: Path, folder: Path) -> Reader:
        save_tiny(folder / name, family="qwen3_vl", **ONE_LAYER)
        for change in changes:
            change(folder / name)
        return lambda: read_model(folder / name)

    return make


def of_qwen3(make: Callable[[Path, Path], Reader]) -> Callable[[Path, Path], Reader]:
    """An adapter of a Qwen3-VL."""

    def made(base: Path, folder: Path) -> Reader:
        qwen3(name="base")(base, folder)
        return make(folder / "base", folder)

    return made


def read_model(folder: Path) -> None:
    source = open_model(str(folder))
    source.check()
    description.read_processor(source.assets, source.config)


def merge(name: str, values: dict) -> Callable[[Path], None]:
    """Adds keys to a JSON file of a folder, which need not be there."""

    def change(folder: Path) -> None:
        path = folder / name
        content = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps(content | values))

    return change


def text(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return change


def flat_and_sparse(folder: Path) -> None:
    """As transformers 4.4x saves a config: flat, without class defaults."""
    config = json.loads((folder / "config.json").read_text())
    decoder = config.pop("text_config")
    rope = decoder.pop("rope_parameters")
    rope = {"rope_theta": rope["rope_theta"], "rope_scaling": {"mrope_section": rope["mrope_section"]}}
    (folder / "config.json").write_text(json.dumps(sparse(decoder | config | rope)))


def torch_shards(folder: Path) -> None:
    """As transformers 4 saves weights with safe_serialization=False."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names, shards = sorted(tensors), 2
    weight_map = {}
    for number in range(shards):
        name = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = names[number::shards]
        torch.save({tensor: tensors[tensor] for tensor in part}, folder / name)
        weight_map |= dict.fromkeys(part, name)
    merge("pytorch_model.bin.index.json", {"metadata": {}, "weight_map": weight_map})(folder)


def words_in_tokenizer(folder: Path) -> None:
    """The language model's template in the tokenizer's file, the one for images in chat_template.json."""
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    merge("chat_template.json", {"chat_template": settings["chat_template"]})(folder)
    merge("tokenizer_config.json", {"chat_template": WORDS})(folder)


def other_processor(folder: Path) -> None:
    """That of a Qwen2.5-VL."""
    merge("preprocessor_config.json", {"patch_size": 14})(folder)


def thinking(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    text("chat_template.jinja", settings["chat_template"] + "{% if add_generation_prompt %}<think>\n{% endif %}")(
        folder
    )


def nested_processor(**settings) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        settings_json = json.loads((folder / "preprocessor_config.json").read_text()) | settings
        merge("processor_config.json", {"image_processor": settings_json})(folder)

    return change


JINJA = "chat_template.jinja"
FOLDERS = [
    ("transformers 4", "model", "flat config without class defaults", (flat_and_sparse,)),
    ("transformers 4", "model", "sharded `pytorch_model-*.bin`", (torch_shards,)),
    (
        "transformers 4",
        "model",
        "`quantization_config` of bitsandbytes",
        (merge("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}),),
    ),
    (
        "transformers 4",
        "processor",
        "`size` with `min_pixels` and `max_pixels`",
        (merge("preprocessor_config.json", {"size": {"min_pixels": 3136, "max_pixels": 12544}}),),
    ),
    (
        "transformers 4",
        "processor",
        "`do_rescale: false`, `resample: 2`",
        (merge("preprocessor_config.json", {"do_rescale": False, "resample": 2}),),
    ),
    ("transformers 4", "processor", "`do_resize: false`", (merge("preprocessor_config.json", {"do_resize": False}),)),
    ("transformers 4", "template", "words alone in the tokenizer, `chat_template.json` beside", (words_in_tokenizer,)),
    ("transformers 5", "model", "nested config, `model.safetensors`", ()),
    ("transformers 5", "processor", "`processor_config.json` beside an older file", (nested_processor(do_pad=None),)),
    ("transformers 5", "processor", "a setting that is not known", (nested_processor(sharpen=2),)),
    ("transformers 5", "template", "`chat_template.jinja`", (text(JINJA, WORDS),)),
    (
        "transformers 5",
        "template",
        "`additional_chat_templates/` and a default",
        (
            text(JINJA, WORDS),
            text("additional_chat_templates/tools.jinja", WORDS),
        ),
    ),
    (
        "transformers 5",
        "template",
        "`additional_chat_templates/` without a default",
        (text("additional_chat_templates/tools.jinja", WORDS),),
    ),
    (
        "unsloth",
        "model",
        "merged to 16 bits",
        (merge("config.json", {"unsloth_fixed": True, "unsloth_version": "2026"}),),
    ),
    (
        "unsloth",
        "model",
        "`-bnb-4bit`",
        (merge("config.json", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}),),
    ),
    (
        "LLaVA",
        "model",
        "LLaVA's own repository (`llava_llama`)",
        (merge("config.json", {"model_type": "llava_llama"}),),
    ),
]


QWEN3 = [
    ("Qwen3-VL", "model", "dense, Instruct", qwen3()),
    ("Qwen3-VL", "model", "mixture of experts", qwen3(merge("config.json", {"model_type": "qwen3_vl_moe"}))),
    ("Qwen3-VL", "model", "Qwen3.5", qwen3(merge("config.json", {"model_type": "qwen3_5"}))),
    ("Qwen3-VL", "model", "Thinking", qwen3(thinking)),
    ("Qwen3-VL", "processor", "Qwen2.5-VL's beside a Qwen3-VL", qwen3(other_processor)),
]


# --- adapters ---------------------------------------------------------------------------------------------------------

LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "exclude_modules": ".*visual.*"}


def adapter_of(*changes: Callable[[Path], None], **settings) -> Callable[[Path, Path], Reader]:
    """peft's adapter of the base, with changes to its files."""

    def make(base: Path, folder: Path) -> Reader:
        config = peft.LoraConfig(**(LORA | settings))
        peft.get_peft_model(Model.from_pretrained(base), config).save_pretrained(folder / "adapter")
        for change in changes:
            change(folder / "adapter")
        return lambda: open_model(str(folder / "adapter"), base=str(base)).check()

    return make


def as_bin(folder: Path) -> None:
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()


def beside(name: str, tensors: dict[str, tuple[int, ...]]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        torch.save({key: torch.ones(shape) for key, shape in tensors.items()}, folder / name)

    return change


SETTINGS = "adapter_config.json"
UNSLOTH = {"auto_mapping": {"base_model_class": "Qwen2_5_VLForConditionalGeneration", "unsloth_fixed": True}}
SWIFT = {"lora_dtype": None, "lorap_lr_ratio": None, "lorap_emb_lr": 1e-6}
ADAPTERS = [
    ("peft", "LoRA", adapter_of()),
    ("peft", "rsLoRA", adapter_of(use_rslora=True)),
    ("peft", "`adapter_model.bin`", adapter_of(as_bin)),
    ("peft", "connector in `modules_to_save`", adapter_of(modules_to_save=["visual.merger"])),
    ("peft", "LoRA of a Qwen3-VL", of_qwen3(adapter_of())),
    (
        "peft",
        "mergers of a Qwen3-VL in `modules_to_save`",
        of_qwen3(adapter_of(modules_to_save=["visual.merger", "deepstack_merger_list.0"])),
    ),
    ("peft", "`init_lora_weights: pissa`", adapter_of(init_lora_weights="pissa")),
    ("peft", "`init_lora_weights: olora`", adapter_of(init_lora_weights="olora")),
    ("peft", "DoRA", adapter_of(use_dora=True)),
    ("peft", "aLoRA", adapter_of(merge(SETTINGS, {"alora_invocation_tokens": [1, 2]}))),
    ("peft", "`rank_pattern`", adapter_of(rank_pattern={"q_proj": 1})),
    ("peft", "adapter on `lm_head`", adapter_of(target_modules=["lm_head"])),
    ("peft", "adapter on the token embeddings", adapter_of(target_modules=["embed_tokens"])),
    ("peft", "a setting of a later version", adapter_of(merge(SETTINGS, {"use_something_new": True}))),
    ("unsloth", "LoRA, `auto_mapping` with its own keys", adapter_of(merge(SETTINGS, UNSLOTH))),
    ("LLaMA-Factory", "LoRA", adapter_of(modules_to_save=None, task_type="CAUSAL_LM")),
    ("ms-swift", "LoRA with its own settings", adapter_of(merge(SETTINGS, SWIFT))),
    (
        "LLaVA",
        "`non_lora_trainables.bin` of a LLaVA connector",
        adapter_of(beside("non_lora_trainables.bin", {"base_model.model.model.mm_projector.0.weight": (4, 4)})),
    ),
    ("LLaVA", "`mm_projector.bin`", adapter_of(beside("mm_projector.bin", {"model.mm_projector.0.weight": (4, 4)}))),
    (
        "2U1",
        "`non_lora_state_dict.bin` with the merger's norm",
        adapter_of(beside("non_lora_state_dict.bin", {"base_model.model.model.visual.merger.ln_q.weight": (32,)})),
    ),
    ("2U1", "an empty `non_lora_state_dict.bin`", adapter_of(beside("non_lora_state_dict.bin", {}))),
]


INPUTS = [
    *(Input(writer, kind, form, folder_of(*changes)) for writer, kind, form, changes in FOLDERS),
    *(Input(*one) for one in QWEN3),
    *(Input(writer, "adapter", form, make) for writer, form, make in ADAPTERS),
    *(Input(writer, "data", form, make) for writer, form, make in DATA),
]


def outcome(one: Input, base: Path, folder: Path) -> str:
    """`read`, or the first line of the refusal, without the folders of this machine."""
    reader = one.make(base, folder)
    try:
        reader()
    except InputError as error:
        return error.lines[0].replace(f"{folder}/", "").replace(str(folder), "").replace(f"{base}", "BASE")
    return "read"


def page(outcomes: dict[Input, str]) -> str:
    """`docs/compatibility.md`."""
    lines = [
        "# Other people's files",
        "",
        "What becomes of models, adapters, processors, templates and data as other programs write them: read, as the",
        "writer itself reads it, or refused in one line. `tests/test_compatibility.py` makes each in small, reads it,",
        "and holds this page against what came of it; it prints the page where they differ.",
    ]
    for kind in ("model", "adapter", "processor", "template", "data"):
        lines += ["", f"## {kind.capitalize()}", "", "| written by | form | here |", "|---|---|---|"]
        lines += [
            f"| {one.writer} | {one.form} | {'read' if output == 'read' else 'refused: ' + escaped(output)} |"
            for one, output in outcomes.items()
            if one.kind == kind
        ]
    return "\n".join(lines) + "\n"


def escaped(line: str) -> str:
    return "`" + line.replace("|", "\\|").replace("`", "'") + "`"

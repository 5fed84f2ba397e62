"""Small CLIPs and SigLIPs with their tokenizers and image processors, made and saved by transformers."""

import json
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer, SiglipConfig, SiglipModel, SiglipTokenizer

from tests.tiny_assembled import PREPROCESSORS, SIZE, randomised
from tests.tiny_models import PHOTOS

TEXTS = [
    "A photo of 2 cats.",
    "",
    "Wat Arun — วัดอรุณ, the temple by the river",
    "a rocket on its way, seen from far below, with a white tail of smoke, on a blue morning in May by the sea",
]
LENGTH = 40
_TEXT = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
_VIEW = {"image_size": SIZE, "patch_size": 7}


def _corpus() -> list[str]:
    return [*TEXTS, json.dumps(json.loads((PHOTOS / "photos.json").read_text()), ensure_ascii=False)]


def clip_tokenizer(folder: Path) -> CLIPTokenizer:
    """Byte-level BPE as CLIP's, its end the token of the highest id."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(_corpus(), trainer)
    state = json.loads(trained.to_str())["model"]
    vocab = dict(state["vocab"])
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocab[token] = len(vocab)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[tuple(pair) for pair in state["merges"]], model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def siglip_tokenizer(folder: Path, *, mask: bool) -> SiglipTokenizer:
    """SentencePiece as SigLIP's. Published folders say that texts have no mask; `mask` leaves that out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "texts.txt").write_text("\n".join(_corpus()), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"),
        model_prefix=str(folder / "spiece"),
        vocab_size=260,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        max_sentence_length=100_000,
        minloglevel=2,
        num_threads=1,
    )
    for name in ("texts.txt", "spiece.vocab"):
        (folder / name).unlink()
    more = {} if mask else {"model_input_names": ["input_ids"]}
    tokenizer = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=LENGTH, **more)
    tokenizer.save_pretrained(folder)
    return tokenizer


def save_clip(folder: Path, *, act: str = "quick_gelu", legacy: bool = False, seed: int = 0) -> CLIPModel:
    tokenizer = clip_tokenizer(folder)
    end = 2 if legacy else tokenizer.eos_token_id
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "eos_token_id": end}
    halves = {"text_config": {**text, "hidden_act": act}, "vision_config": {**_VISION, **_VIEW, "hidden_act": act}}
    model = randomised(CLIPModel(CLIPConfig(**halves, projection_dim=20)), seed)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS["clip"]))
    return model


def save_siglip(folder: Path, *, mask: bool = False, seed: int = 0) -> SiglipModel:
    tokenizer = siglip_tokenizer(folder, mask=mask)
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "projection_size": 32}
    model = randomised(SiglipModel(SiglipConfig(text_config=text, vision_config={**_VISION, **_VIEW})), seed)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS["siglip"]))
    return model

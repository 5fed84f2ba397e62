"""BEM (Bulian et al. 2022): whether two answers to a question mean the same, by a BERT that was trained to tell.

The model is a folder with a Hugging Face `BertForSequenceClassification` of two labels, the second "equivalent", that a
person points at; nothing is fetched. PyTorch runs it (the extra `bem`), on the CPU.
"""

import importlib.util
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import squad

LENGTH = 512
_LEAST = 0.5
_AT_ONCE = 32


def bem(prediction: str, answers: Sequence[str], *, question: str, bem: str) -> float:
    """1 where the prediction is an answer by SQuAD's exact match, or means the same as one by the model in `bem`."""
    return squad.exact_match(prediction, answers) or best(prediction, answers, question=question, bem=bem)


def best(prediction: str, answers: Sequence[str], *, question: str, bem: str) -> float:
    """1 where the model gives one half or more to any answer.

    Raises:
      InputError: no question, or what `opened` refuses.
    """
    if not question:
        raise InputError("BEM reads the question, and there is none; pass question=…")
    shares = opened(bem).shares([prediction] * len(answers), answers, [question] * len(answers))
    return float(max(shares) >= _LEAST)


@lru_cache(maxsize=1)
def opened(folder: str) -> "Equivalence":
    """The model in a folder, loaded once.

    Raises:
      InputError: as `check`; files that cannot be read, or that lack weights.
    """
    check(folder)
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, loaded = transformers.BertForSequenceClassification.from_pretrained(
            folder, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"{folder}: cannot be opened as a BERT ({str(error).splitlines()[0]})") from None
    if missing := sorted(loaded["missing_keys"]):
        raise InputError(f"{folder}: has no weights for {missing[0]}; wanted a BERT trained to tell answers apart")
    return Equivalence(model.eval(), tokenizer)


def check(folder: str) -> None:
    """Raises InputError where PyTorch is not installed, or the folder is missing or holds another model."""
    if importlib.util.find_spec("torch") is None:
        raise InputError("BEM runs on PyTorch, which is not installed; pip install 'vlm-jax[bem]'")
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: is no folder of a Hugging Face model (config.json: {error})") from None
    kind = ", ".join(config.get("architectures") or []) or str(config.get("model_type"))
    labels = len(config.get("id2label") or (0, 1))
    if "BertForSequenceClassification" not in kind or labels != 2:
        raise InputError(f"{folder}: holds {kind} with {labels} labels; wanted BertForSequenceClassification with 2")


class Equivalence:
    """A loaded model."""

    def __init__(self, model: Any, tokenizer: Any):
        self._model, self._tokenizer = model, tokenizer
        self._length = min(LENGTH, model.config.max_position_embeddings)
        # The published model numbers candidate, reference and question 0, 1, 2; its port has two numbers.
        self._last_segment = min(2, model.config.type_vocab_size - 1)

    def shares(
        self, candidates: Sequence[str], references: Sequence[str], questions: Sequence[str], *, batch: int = _AT_ONCE
    ) -> list[float]:
        """Of each triple, the share in [0, 1] that the model gives to "equivalent": its softmax's second entry."""
        import torch

        rows = [self._row(triple) for triple in zip(candidates, references, questions, strict=True)]
        shares: list[float] = []
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            longest = max(len(ids) for ids, _ in some)
            padding = self._tokenizer.pad_token_id
            columns = {
                "input_ids": [ids + [padding] * (longest - len(ids)) for ids, _ in some],
                "token_type_ids": [segments + [0] * (longest - len(segments)) for _, segments in some],
                "attention_mask": [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in some],
            }
            with torch.inference_mode():
                logits = self._model(**{name: torch.tensor(rows) for name, rows in columns.items()}).logits
            shares += torch.softmax(logits.float(), dim=-1)[:, 1].tolist()
        return shares

    def _row(self, triple: tuple[str, str, str]) -> tuple[list[int], list[int]]:
        """`[CLS] candidate [SEP] reference [SEP] question [SEP]` and the segment of each token."""
        parts = [self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in triple]
        while sum(map(len, parts)) + len(parts) + 1 > self._length:
            max(parts, key=len).pop()  # mostly the candidate, of a model that did not stop
        ids, segments = [self._tokenizer.cls_token_id], [0]
        for number, part in enumerate(parts):
            ids += [*part, self._tokenizer.sep_token_id]
            segments += [min(number, self._last_segment)] * (len(part) + 1)
        return ids, segments

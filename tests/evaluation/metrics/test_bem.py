"""BEM with a tiny BERT that transformers makes: what it is shown, what it decides, and what is no such model."""

import sys

import pytest
import torch
import transformers

from vlm_jax.errors import InputError
from vlm_jax.evaluation.metrics import bem, score

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] red crimson blue what colour is it ? ##s".split()


def save(folder, labels=2, segments=2, cls=transformers.BertForSequenceClassification, **more):
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=24,
        type_vocab_size=segments,
        num_labels=labels,
        initializer_range=0.5,
        **more,
    )
    torch.manual_seed(0)
    cls(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("bem") / "model")


def expected(folder, candidate, reference, question):
    """As the model's card has it: the candidate as one text, reference and question as its pair."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.BertForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(
        f"[CLS] {candidate} [SEP]", f"{reference} [SEP] {question} [SEP]", add_special_tokens=False, return_tensors="pt"
    )
    with torch.no_grad():
        return torch.softmax(model(**inputs).logits, -1)[0, 1].item()


def test_shares_are_those_of_transformers_one_by_one_and_in_batches(folder):
    triples = [("red", "crimson", "what colour is it?"), ("blue", "Crimson Reds", "is it?"), ("", "red", "what?")] * 3
    one_by_one = [expected(folder, *triple) for triple in triples]
    columns = [list(column) for column in zip(*triples, strict=True)]
    for batch in (1, 2, 32):
        assert bem.opened(folder).shares(*columns, batch=batch) == pytest.approx(one_by_one, abs=1e-5)
    assert len(set(one_by_one)) == 3


def test_it_decides_at_one_half_and_only_where_the_texts_differ(folder):
    question = "what colour is it?"
    said = {answer: bem.opened(folder).shares(["red"], [answer], [question])[0] for answer in ("crimson", "blue", "it")}
    for answer, share in said.items():
        assert score("bem", "red", answer, question, bem=folder) == float(share >= 0.5)
    assert score("bem", "red", list(said), question, bem=folder) == float(max(said.values()) >= 0.5)
    assert score("bem", "The Red!", "red", question, bem="a folder that is not there") == 1.0
    assert score("encyclopedic_vqa", "red", "blue", question) == 0.0
    assert score("encyclopedic_vqa", "red", list(said), question, bem=folder) == float(max(said.values()) >= 0.5)
    joined = bem.opened(folder).shares(["red"], ["blue,it"], [question])[0]
    assert score("encyclopedic_vqa", "red", "blue&&it", question, bem=folder) == float(joined >= 0.5)


def test_three_segments_are_numbered_apart_and_long_texts_are_cut_to_the_model(folder, tmp_path):
    three = bem.opened(save(tmp_path / "three", segments=3))
    ids, segments = three._row(("red", "crimson blue", "what?"))
    assert [WORDS[id] for id in ids] == ["[CLS]", "red", "[SEP]", "crimson", "blue", "[SEP]", "what", "?", "[SEP]"]
    assert segments == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    ids, segments = bem.opened(folder)._row(("red " * 5000, "crimson", "what colour is it?"))
    assert len(ids) == 24 and segments == [0] * 16 + [1] * 8
    assert [WORDS[id] for id in ids[-8:]] == ["crimson", "[SEP]", "what", "colour", "is", "it", "?", "[SEP]"]


def test_what_is_no_such_model_is_refused_in_one_line(tmp_path, monkeypatch):
    def refused(folder, question="what?"):
        with pytest.raises(InputError) as error:
            score("bem", "red", "blue", question, bem=str(folder))
        assert len(error.value.lines) == 1
        return error.value.lines[0]

    assert "is no folder of a Hugging Face model" in refused(tmp_path / "gone")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    assert "is no folder of a Hugging Face model" in refused(tmp_path / "broken")
    save(tmp_path / "three", labels=3)
    assert refused(tmp_path / "three").endswith("3 labels; wanted BertForSequenceClassification with 2")
    save(tmp_path / "plain", cls=transformers.BertModel)
    assert "holds BertModel" in refused(tmp_path / "plain")
    headless = tmp_path / "headless"
    save(headless, cls=transformers.BertModel)
    text = (headless / "config.json").read_text().replace("BertModel", "BertForSequenceClassification")
    (headless / "config.json").write_text(text)
    assert "has no weights for classifier" in refused(headless)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refused(tmp_path / "gone") == "BEM runs on PyTorch, which is not installed; pip install 'vlm-jax[bem]'"

"""Question, context and suffix as they reach a model: the same words in training and evaluation."""

import pickle

import pytest

from data_pipeline import sources
from data_pipeline.parts import open_files, open_parts
from data_pipeline.prompting import PLAIN, Prompt, errors_of, prompted
from data_pipeline.questions import questions_of
from data_pipeline.records import Record
from tests.data_pipeline.official_files import write_lines
from vlm_jax.errors import InputError
from vlm_jax.evaluation.runner import text_of
from vlm_jax.training.config import default_config

TALK = [("user", "Who?"), ("assistant", "I."), ("user", "Why?"), ("assistant", "So.")]


def record(*turns, context=None):
    messages = [{"role": role, "content": content} for role, content in turns or TALK]
    return Record("r", messages, context=context, where="a.jsonl, line 1")


def words(asked):
    return [text_of(message) for message in asked.messages]


def test_without_a_template_and_a_suffix_a_record_is_asked_as_it_is():
    one = record(context="Wheat.")
    assert prompted(one, Prompt("", "")) is one and prompted(one, PLAIN) is one
    assert prompted(one, Prompt("{question}")) == one


def test_a_suffix_ends_every_question_and_no_answer():
    assert words(prompted(record(), Prompt(suffix="\nBriefly."))) == ["Who?\nBriefly.", "I.", "Why?\nBriefly.", "So."]


def test_a_context_is_shown_once_and_other_words_around_every_question():
    one = record(context="A {brace}.")
    assert words(prompted(one, Prompt("{context}\n\n{question}!"))) == ["A {brace}.\n\nWho?!", "I.", "Why?", "So."]
    assert words(prompted(one, Prompt("Q: {question} {{A}}:"))) == ["Q: Who? {A}:", "I.", "Q: Why? {A}:", "So."]
    assert words(prompted(record(("user", "Who?"), context=""), Prompt("{context}|{question}"))) == ["|Who?"]


def test_images_keep_their_places_and_the_record_is_left_alone():
    image = {"type": "image", "image": "/a.png"}
    text = {"type": "text", "text": "Who?"}
    one = record(("user", [image, text]), context="Wheat.")
    (message,) = prompted(one, Prompt("{context} {question}", "!")).messages
    assert message["content"] == [image, {"type": "text", "text": "Wheat. Who?!"}]
    assert one.messages[0]["content"] == [image, text] and text == {"type": "text", "text": "Who?"}
    two = record(("user", [text, image, text]))
    (message,) = prompted(two, Prompt("<{question}>")).messages
    assert [part.get("text") for part in message["content"]] == ["<Who?", None, "Who?>"]
    (message,) = prompted(record(("user", [image])), Prompt(suffix="What?")).messages
    assert message["content"] == [image, {"type": "text", "text": "What?"}]


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{context}", "'{context}' does not say where the {question} stands"),
        ("{question} {question}", "names {question} 2 times; name it once"),
        ("{question} {cntext}", "nothing is called {cntext}; did you mean {context}?"),
        ("{question} {x}", "nothing is called {x}; there are {question}, {context}"),
        ("{question!r}", "writes {question} in a form of its own; write {question} alone"),
        ("{question", "is no template"),
        ("{question} {}", "nothing is called {}"),
    ],
)
def test_a_template_that_is_none_is_refused_by_what_it_names(template, error):
    with pytest.raises(InputError) as caught:
        Prompt(template)
    assert error in caught.value.lines[0]
    assert error in errors_of({"template": template, "suffix": ""}, "config.data")[0]


def test_a_line_break_may_be_typed():
    assert Prompt("{context}\\n{question}", "\\n.") == Prompt("{context}\n{question}", "\n.")


def test_a_context_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="a.jsonl, line 1: has no 'context', which the template shows"):
        prompted(record(), Prompt("{context} {question}"))


def data_settings(path, **settings):
    return {**default_config().data.to_dict(), "path": str(path), **settings}


def test_training_and_evaluation_ask_in_the_same_words(tmp_path):
    rows = [{"image": "", "question": f"What {n}?", "answer": "wheat", "context": f"Article {n}."} for n in range(3)]
    path = write_lines(tmp_path / "a.jsonl", *rows)
    prompt = Prompt("{context}\n\n{question}", "\nBriefly.")
    (part,) = open_parts(data_settings(path, template=prompt.template, suffix=prompt.suffix), None, seed=0)
    trained = [part.source[index] for index in range(3)]
    asked = [one for record in sources.read(path)[0] for one in questions_of(record, [], prompt=prompt)]
    for learned, question in zip(trained, asked, strict=True):
        assert learned.messages[:-1] == question.messages
    assert words(trained[1])[0] == "Article 1.\n\nWhat 1?\nBriefly." and asked[1].text == "What 1?"
    (plain,) = open_parts(data_settings(path), None, seed=0)
    assert [plain.source[index] for index in range(3)] == sources.read(path)[0]
    assert pickle.loads(pickle.dumps(part.source))[1] == trained[1]


def test_a_part_of_a_mixture_may_be_asked_otherwise(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"image": "", "question": "What?", "answer": "wheat"})
    mixture = {"own": {"path": path, "suffix": " Briefly."}, "other": {"path": path}}
    parts = open_parts(data_settings("", mixture=mixture, suffix="!"), None, seed=0)
    assert [words(part.source[0])[0] for part in parts] == ["What? Briefly.", "What?!"]
    mixture = {"own": {"path": path, "template": "{quetion}", "suffix": 3}}
    with pytest.raises(InputError) as caught:
        open_files(data_settings("", mixture=mixture))
    assert [line.partition(" ")[0] for line in caught.value.lines] == [
        "config.data.mixture.own.template:",
        "config.data.mixture.own.template:",
        "config.data.mixture.own.suffix",
    ]
    with pytest.raises(InputError, match="config.data.template: nothing is called"):
        open_files(data_settings(path, template="{x}{question}"))

"""The models of the chat page: who is answered when, and that one visitor's choice is not the next one's."""

import threading
import time

import numpy as np
import pytest

from dialogue import Dialogue, Reply, picture
from loaded_models import LONGEST_LINE, Line, Models, budget_of, names_of
from tests.tiny_models import PHOTOS, save_tiny
from vlm_jax.errors import InputError
from vlm_jax.processing.images import open_image


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    folder = tmp_path_factory.mktemp("other") / "after"
    save_tiny(folder, layers=2, depth=2, global_blocks=(1,), max_visual_tokens=16, seed=5)
    return folder


@pytest.fixture(scope="module")
def models(base, other):
    return Models([str(base), str(other)])


def test_visitors_are_answered_one_after_the_other_in_the_order_they_came():
    line, order, most = Line(), [], []
    inside = []

    def visit(number):
        with line.turn(lambda before: most.append(before)):
            inside.append(number)
            assert len(inside) == 1
            order.append(number)
            time.sleep(0.25)
            inside.remove(number)

    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=visit, args=(number,)))
        threads[-1].start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3] and most and set(most) <= {1, 2, 3}


def test_a_visitor_who_leaves_while_waiting_or_answered_frees_the_place():
    line = Line()

    class Gone(Exception):
        pass

    def leave(before):
        raise Gone

    with line.turn():
        for _ in range(2):
            with pytest.raises(Gone), line.turn(leave):
                raise AssertionError("it was not one's turn")
    with pytest.raises(Gone), line.turn():
        raise Gone
    with line.turn(lambda before: pytest.fail("nobody is there")):
        pass


def test_a_line_that_is_too_long_is_closed():
    line, leave = Line(), threading.Event()

    def visit():
        with line.turn():
            leave.wait(10)

    threads = [threading.Thread(target=visit) for _ in range(LONGEST_LINE)]
    for thread in threads:
        thread.start()
    while len(line._tickets) < LONGEST_LINE:
        time.sleep(0.01)
    with pytest.raises(InputError, match="too many are waiting"), line.turn():
        pass
    leave.set()
    for thread in threads:
        thread.join(10)


def test_the_images_of_a_conversation_are_encoded_once_whatever_another_visitor_chose_meanwhile(models):
    name = models.names[0]
    dialogue = Dialogue()
    dialogue.add([picture("cat.jpg", (PHOTOS / "chelsea.jpg").read_bytes())])
    for number, question in enumerate(("What is the cat called?", "And where is it?")):
        turn = dialogue.ask(question)
        with models.line.turn():
            model = models.get(name).chosen(None)
            before = model.images_encoded
            text = "".join(model.stream(dialogue.messages(name, number), 6))
            assert model.images_encoded - before == (1 if number == 0 else 0)
            turn.replies[name] = Reply(text, finished=True)
            expected = model.processor.budget
        with models.line.turn():  # another visitor
            models.get(name).chosen(budget_of(25, "divprune"))
            list(model.stream(dialogue.messages(name, 0), 2))
    assert models.get(name).chosen(None).processor.budget == expected


def test_as_many_models_are_held_as_may_be_and_the_one_in_memory_goes_first(models):
    first, second = models.names
    models.get(first)
    assert not models.in_memory(second) and models.first_in_memory([second, first]) == [first, second]
    loaded = models.get(second)
    assert models.get(second) is loaded, "it is not loaded again"
    known = models.known(first)
    assert not models.in_memory(first) and known.model is None, "another has its place"
    assert "uniform" in known.methods and known.visual_tokens((300, 200), budget_of(25, "uniform"))


def test_what_stays_of_a_picture_is_drawn_and_counted(models):
    held = models.get(models.names[0])
    image = open_image(PHOTOS / "chelsea.jpg")
    every = held.visual_tokens(image.size, None)
    quarter = budget_of(25, "uniform")
    drawing, title = held.drawn(image, "What is it?", quarter)
    assert title == f"{held.visual_tokens(image.size, quarter)} of {every} visual tokens, by uniform"
    assert held.visual_tokens(image.size, quarter) == int(every * 0.25 + 0.5)
    whole, title = held.drawn(image, "What is it?", None)
    assert title == f"{every} of {every} visual tokens, by resize"
    assert np.asarray(drawing).mean() < 0.6 * np.asarray(whole).mean(), "three quarters are dark"
    assert drawing.width == 320


def test_only_methods_that_the_model_can_take_are_offered(models):
    methods = models.get(models.names[0]).methods
    assert {"resize", "uniform", "divprune", "cdpruner"} <= set(methods)
    assert not {"mmr_learned", "fastv", "pyramiddrop"} & set(methods), "not learned; two layers are too few"


def test_all_folders_are_looked_at_before_one_is_loaded(base, tmp_path):
    with pytest.raises(InputError) as error:
        Models([str(base), str(tmp_path / "nothing"), str(tmp_path)])
    assert len(error.value.lines) == 2 and "nothing" in error.value.lines[0]


def test_models_have_the_shortest_names_that_tell_them_apart():
    assert names_of(["runs/a", "Qwen/Qwen2.5-VL-3B-Instruct"]) == ["a", "Qwen2.5-VL-3B-Instruct"]
    assert names_of(["runs/a/hf", "runs/b/hf"]) == ["a/hf", "b/hf"]
    with pytest.raises(InputError, match="given twice"):
        names_of(["runs/a", "runs/a"])

"""What a reply comes to, in whichever form it says so."""

import pytest

from vlm_jax.evaluation.metrics.chain_of_thought import answers_in, final_answer, split


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("Paris", "Paris"),
        ("  Paris \n", "Paris"),
        ("", ""),
        ("\n \n", ""),
        ("I see a tower. It is in France.\nAnswer: Paris", "Paris"),
        ("Steps. Answer: Paris", "Paris"),
        ("Steps.\n**Answer:** Paris", "Paris"),
        ("Steps.\n**Answer**: Paris", "Paris"),
        ("Steps.\n**Answer: Paris**", "Paris"),
        ("Steps.\n*Answer:* Paris", "Paris"),
        ("Steps.\nANSWER : Paris", "Paris"),
        ("Steps.\nFinal answer: Paris", "Paris"),
        ("Steps.\nFinal Answer\nParis", "Paris"),
        ("Steps.\n### Final Answer:\n\nParis\n", "Paris"),
        ("The final answer is Paris.", "Paris"),
        ("So the answer is: Paris", "Paris"),
        ("The correct answer is U.S.A.", "U.S.A"),  # the full stop of the sentence
        ("Answer: U.S.A.", "U.S.A."),
        ("Answer: red\nNo.\nAnswer: blue", "blue"),
        ("The answer is red. But look again.\nAnswer: blue", "blue"),
        ("Answer: red, since it glows.", "red, since it glows."),
        (r"Thus \boxed{42}.", "42"),
        (r"Thus $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{\text{Paris}}", "Paris"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"Answer: \boxed{7}", "7"),
        (r"\boxed{7} so the answer is 8.", "8"),
        (r"\boxed{unclosed", "unclosed"),
        ("<think>Answer: no</think>\nParis", "Paris"),
        ("<think>hm</think>Steps\nAnswer: Paris", "Paris"),
        ("<think>Answer: Paris</think>", "Paris"),
        ("เห็นหอคอย\nคำตอบ: ปารีส", "ปารีส"),
        ("เห็นหอคอย\n**คำตอบ:** ปารีส", "ปารีส"),
        ("เห็นหอคอย ดังนั้นคำตอบคือ ปารีส", "ปารีส"),
        ("คำตอบสุดท้าย: ปารีส", "ปารีส"),
        ("先看。\n答案：红", "红"),
        ("見る。\n答え：赤", "赤"),
        ("First line.\nSecond line.\nParis", "Paris"),
        ("No label.\n\n**Paris**\n", "Paris"),
        ("Answer:", "Answer:"),
        ("unanswerable", "unanswerable"),
        ("reanswer: x", "reanswer: x"),
    ],
)
def test_the_final_answer_is_found(reply, expected):
    assert final_answer(reply) == expected


def test_the_strict_form_has_its_label_in_the_last_line():
    assert split("Steps.\nAnswer: red") == ("Steps.", "red")
    assert split("I see it. Final answer: red") == ("I see it.", "red")
    assert split("Answer: red\nand so on") == ("Answer: red\nand so on", "")
    assert split("ดู\nคำตอบ: แดง") == ("ดู", "แดง")
    assert answers_in("Answer: red\nIt is. Answer: blue. No.\nthe answer: x") == ["red", "blue. No."]

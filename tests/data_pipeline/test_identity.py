"""What is told of two data sets that differ: a few ids of each kind, never two hashes."""

from data_pipeline.identity import differences

BEFORE = {"0": {"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}}


def test_added_removed_and_changed_records_are_counted_and_a_few_named():
    assert differences(BEFORE, {"0": {**BEFORE["0"], "f": "6"}}) == ["1 added (f)"]
    assert differences(BEFORE, {"0": {"a": "1"}}) == ["4 removed (b, c, d, …)"]
    assert differences(BEFORE, {"0": {**BEFORE["0"], "c": "9"}}) == ["1 changed (c)"]


def test_another_order_or_other_images_are_told_as_such():
    assert differences(BEFORE, {"0": dict(reversed(BEFORE["0"].items()))}) == ["the same records in another order"]
    assert "images" in differences(BEFORE, BEFORE)[0]


def test_a_run_that_wrote_nothing_down_tells_nothing():
    assert differences(None, BEFORE) == [] == differences(BEFORE, None)
    assert differences(BEFORE, {**BEFORE, "1": {}})[0] == "1 parts then, 2 now"

"""Fusion against its formulas, written out."""

import numpy as np
import pytest

from vlm_jax.errors import InputError
from vlm_jax.retrieval import fusion

SCORES = {
    "image_to_image": np.array([0.9, np.nan, 0.5, 0.1]),
    "text_to_text": np.array([0.2, 0.8, 0.4, 0.2]),
}
WEIGHTS = {"image_to_image": 2.0, "text_to_text": 1.0}


def test_minmax_brings_a_channel_to_0_and_1_and_what_has_no_score_is_lowest():
    assert fusion.normalised(SCORES["image_to_image"]).tolist() == pytest.approx([1, 0, 0.5, 0])
    assert fusion.normalised(np.array([3.0, 3.0])).tolist() == [0, 0]
    assert fusion.normalised(np.array([np.nan, np.nan])).tolist() == [0, 0]


def test_zscore_is_in_deviations_from_the_mean():
    known = np.array([0.9, 0.5, 0.1])
    z = (known - known.mean()) / known.std()
    found = fusion.normalised(SCORES["image_to_image"], "zscore")
    assert found.tolist() == pytest.approx([z[0], z[2], z[1], z[2]])
    assert fusion.normalised(np.array([3.0, 3.0]), "zscore").tolist() == [0, 0]


def test_a_weighted_sum_orders_passages_and_equal_ones_stay_in_order():
    fused = fusion.weighted(SCORES, WEIGHTS)
    assert fused.tolist() == pytest.approx([2 * 1 + 0, 0 + 1, 2 * 0.5 + 1 / 3, 0])
    passages = np.array([4, 7, 9, 11])
    assert fusion.order_of(fused, passages).tolist() == [4, 9, 7, 11]
    assert fusion.order_of(np.array([1.0, 2.0, 1.0, 2.0]), passages[::-1]).tolist() == [4, 9, 7, 11]


def test_without_normalisation_the_sum_is_the_similarity_of_summed_vectors():
    """UniIR's score fusion."""
    rng = np.random.default_rng(0)
    text, image = rng.normal(size=(2, 8))
    texts, images = rng.normal(size=(2, 5, 8))
    vectors = {"text": (text, texts), "image": (image, images)}
    scores = {
        channel: vectors[channel.partition("_to_")[2]][1] @ vectors[channel.partition("_to_")[0]][0]
        for channel in fusion.CHANNELS
    }
    fused = fusion.weighted(scores, dict.fromkeys(fusion.CHANNELS, 1.0), "none")
    np.testing.assert_allclose(fused, (texts + images) @ (text + image))


def test_reciprocal_rank_fusion_is_its_authors_formula():
    rankings = {"image_to_image": np.array([5, 2, 9]), "text_to_text": np.array([9, 5])}
    fused = fusion.reciprocal_rank(rankings, WEIGHTS, np.array([2, 5, 9]))
    assert fused.tolist() == pytest.approx([2 / 62, 2 / 61 + 1 / 62, 2 / 63 + 1 / 61])


@pytest.mark.parametrize(
    ("weights", "line"),
    [
        ({"text_to_txt": 1.0}, "weights name 'text_to_txt'; the channels are image_to_image"),
        ({"text_to_text": -1}, "the weight of text_to_text is -1; wanted a number from 0"),
        ({"text_to_text": float("nan")}, "the weight of text_to_text is nan"),
        ({"text_to_text": 0}, "no channel has a weight above 0"),
    ],
)
def test_weights_that_cannot_be_are_refused(weights, line):
    with pytest.raises(InputError, match=line):
        fusion.checked_weights(weights)


def test_a_normalisation_that_is_not_known_is_refused():
    with pytest.raises(InputError, match="normalise is 'softmax'; known are minmax, zscore, none"):
        fusion.normalised(np.array([1.0]), "softmax")

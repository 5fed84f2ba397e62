"""What is told of data before training on it."""

import pytest

from data_pipeline import inspection


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ([(512, 512), (4000, 3000)], []),
        ([(512, 512), (8000, 7000)], ["8,000 × 7,000: 0.9 GB while it is decoded, 2 at a time"]),
        ([(9400, 9400), (512, 512)], ["9,400 × 9,400: 1.4 GB while it is decoded, 1 at a time"]),
        ([(13000, 13000)], ["13,000 × 13,000: 2.7 GB while it is decoded, 1 at a time"]),
    ],
)
def test_images_whose_memory_is_felt_are_announced(sizes, told):
    assert [line.split(" is ", 1)[1] for line in inspection._large(sizes)] == told

"""M-RoPE positions of one example, in numpy (Qwen2-VL, arXiv:2409.12191).

Text counts on in all three axes; an image holds t still while h and w run over its merged grid; the text after it
goes on at start + max(h, w).
"""

import numpy as np
from jaxtyping import Int


def mrope_positions(
    tokens: Int[np.ndarray, " n"], grids: list[tuple[int, int]], image_token: int
) -> Int[np.ndarray, "3 n"]:
    """Positions (t, h, w) of each token.

    Args:
      tokens: token ids, each image's place holding rows × columns copies of `image_token`.
      grids: (rows, columns) of visual tokens of each image, in order.
      image_token: the id that marks visual tokens.
    """
    # A text token moves the counter by one. An image's first token is where its grid starts; the counter then jumps
    # by max(h, w), which lands on the first token after the image.
    step = np.ones(len(tokens) + 1, np.int64)
    step[1:][tokens == image_token] = 0
    starts, start = [], 0
    places = np.flatnonzero(tokens == image_token)
    for rows, columns in grids:
        first = places[start]
        starts.append(first)
        step[first + rows * columns] += max(rows, columns)
        start += rows * columns
    step[0] = 0
    base = np.cumsum(step)[:-1]
    positions = np.broadcast_to(base, (3, len(tokens))).copy()
    for first, (rows, columns) in zip(starts, grids, strict=True):
        here = slice(first, first + rows * columns)
        positions[1, here] += np.repeat(np.arange(rows), columns)
        positions[2, here] += np.tile(np.arange(columns), rows)
    return positions.astype(np.int32)

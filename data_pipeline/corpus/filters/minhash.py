"""Which of many texts may be near-duplicates: MinHash of their shingles, banded, with a window in each bucket.

128 hashes in 32 bands of 4 rows (Broder 1997; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, chapter 3).
Shared templates fill buckets: in each one a text is compared with the next few only, never all with all. Texts are
known by a 64-bit hash, and everything is in its order, so that no result depends on the order of the input. Whether a
candidate is one is `near_text`'s.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt32, UInt64

SHINGLE = 5
"""Characters of a shingle; a shorter text is its own, filled up."""
HASHES, BANDS = 128, 32
ROWS = HASHES // BANDS
WINDOW = 3
"""Texts that one is compared with in each bucket: enough for 100,000; more as the corpus grows."""
LEAST_ESTIMATE = 0.58
"""Of equal hashes, below which the exact similarity is not worked out."""
_PIECE = 20_000  # texts at a time: bounds the memory for shingles
_FILL = "\ue000"  # a private character, which stands in no question


def shingles(texts: Sequence[str]) -> tuple[UInt64[np.ndarray, " s"], Int[np.ndarray, " texts"]]:
    """64-bit hashes of all overlapping runs of SHINGLE characters, text after text, and where each text's begin."""
    filled = [text if len(text) >= SHINGLE else text + _FILL * (SHINGLE - len(text)) for text in texts]
    lengths = np.fromiter(map(len, filled), np.int64, len(filled))
    codes = np.frombuffer("".join(filled).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        hashed = np.zeros(max(0, len(codes) - SHINGLE + 1), np.uint64)
        for place in range(SHINGLE):
            hashed = hashed * np.uint64(0x100000001B3) + codes[place : place + len(hashed)]
        hashed = _mixed(hashed)
    ends = np.cumsum(lengths)
    inside = np.ones(len(codes), bool)
    for place in range(1, SHINGLE):  # runs that reach into the next text
        inside[ends - place] = False
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE + 1)])[:-1]
    return hashed[inside[: len(hashed)]], offsets.astype(np.int64)


def signatures(texts: Sequence[str]) -> UInt32[np.ndarray, "texts 128"]:
    """MinHash signatures. Equal hashes of two are in expectation the Jaccard similarity of their shingles."""
    multipliers = np.random.default_rng(128).integers(0, 2**63, HASHES, np.uint64) * np.uint64(2) + np.uint64(1)
    found = np.empty((len(texts), HASHES), np.uint32)
    for start in range(0, len(texts), _PIECE):
        hashed, offsets = shingles(texts[start : start + _PIECE])
        with np.errstate(over="ignore"):
            for number, multiplier in enumerate(multipliers):
                rows = ((hashed * multiplier) >> np.uint64(32)).astype(np.uint32)
                found[start : start + _PIECE, number] = np.minimum.reduceat(rows, offsets)
    return found


def band_keys(signed: UInt32[np.ndarray, "texts 128"]) -> UInt64[np.ndarray, "texts 32"]:
    """A key a band: equal for texts whose ROWS hashes of it are. The low bits are the band's number."""
    with np.errstate(over="ignore"):
        keys = np.zeros((len(signed), BANDS), np.uint64)
        for row in range(ROWS):
            keys = keys * np.uint64(0x9E3779B97F4A7C15) + signed[:, row::ROWS]
        keys = _mixed(keys)
    return (keys & ~np.uint64(BANDS - 1)) | np.arange(BANDS, dtype=np.uint64)


def bucket_entries(
    names: UInt64[np.ndarray, " texts"], signed: UInt32[np.ndarray, "texts 128"]
) -> UInt64[np.ndarray, "entries 3"]:
    """For each text and band (its key, the key of its next band, the text's name), as `windowed` takes them."""
    keys = band_keys(signed)
    columns = (keys, np.roll(keys, -1, axis=1), np.repeat(names[:, None], BANDS, axis=1))
    return np.stack([column.ravel() for column in columns], axis=1)


def windowed(entries: UInt64[np.ndarray, "n 3"], window: int) -> UInt64[np.ndarray, "pairs 2"]:
    """Each text with the next `window` in every bucket.

    Within a bucket texts are in the order of their next band's keys, then of their names: what is alike in two bands
    lies side by side, however full the template's bucket is.

    Args:
      entries: of `bucket_entries`, in any order. A bucket, all of one key, must be here as a whole.

    Returns:
      Pairs of names, the smaller first, ascending, each once.
    """
    entries = entries[np.lexsort((entries[:, 2], entries[:, 1], entries[:, 0]))]
    keys, names = entries[:, 0], entries[:, 2]
    found = []
    for step in range(1, window + 1):
        together = keys[step:] == keys[:-step]
        pairs = np.stack([names[:-step][together], names[step:][together]], axis=1)
        found.append(np.sort(pairs, axis=1))
    return unique_pairs(np.concatenate(found))


def unique_pairs(pairs: UInt64[np.ndarray, "n 2"]) -> UInt64[np.ndarray, "m 2"]:
    """Pairs ascending, each once, without pairs of equals."""
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    fresh = np.ones(len(pairs), bool)
    fresh[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[fresh]


def alike(one: UInt32[np.ndarray, "n 128"], other: UInt32[np.ndarray, "n 128"]) -> Bool[np.ndarray, " n"]:
    """Whether the share of equal hashes reaches LEAST_ESTIMATE, row by row."""
    return (one == other).sum(axis=1) >= LEAST_ESTIMATE * HASHES


def jaccard(pairs: Sequence[tuple[str, str]]) -> Float[np.ndarray, " n"]:
    """The exact similarity of the shingles of two texts."""
    runs = ((_runs(one), _runs(other)) for one, other in pairs)
    return np.fromiter((len(a & b) / len(a | b) for a, b in runs), np.float64, len(pairs))


def _runs(text: str) -> set[str]:
    return {text[start : start + SHINGLE] for start in range(max(1, len(text) - SHINGLE + 1))}


def _mixed(value: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The finaliser of MurmurHash3: every bit of the result depends on every bit of the value."""
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    value = (value ^ (value >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))

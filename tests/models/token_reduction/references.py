"""Methods of token reduction as their definitions say them, in plain NumPy, one image at a time and in float64."""

import numpy as np


def unit(vectors):
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def scaled(values):
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def first_best(scores, kept):
    """Of what is not kept, the highest score; of those within rounding of it the first."""
    scores = np.where(kept, -np.inf, scores)
    return int(np.flatnonzero(scores >= scores.max() - 1e-6)[0])


def divprune(embeddings, keep, **_):
    cosines = unit(embeddings) @ unit(embeddings).T
    count = len(cosines)
    kept = np.zeros(count, bool)
    others = np.where(np.eye(count, dtype=bool), -1.0, cosines)
    kept[first_best(1 - others.max(axis=1), kept)] = True
    while kept.sum() < keep:
        kept[first_best((1 - cosines[:, kept]).min(axis=1), kept)] = True
    return np.flatnonzero(kept)


def mmr(embeddings, keep, *, importance, **_):
    cosines = unit(embeddings) @ unit(embeddings).T
    kept = np.zeros(len(cosines), bool)
    while kept.sum() < keep:
        likeness = cosines[:, kept].max(axis=1) if kept.any() else 0
        kept[first_best(0.5 * np.asarray(importance, np.float64) - 0.5 * likeness, kept)] = True
    return np.flatnonzero(kept)


def cdpruner(embeddings, keep, *, query, **_):
    """Greedy MAP by determinants themselves: what a token adds is det(kept + token) / det(kept)."""
    relevance = np.maximum(scaled((unit(embeddings) @ unit(query).T).mean(axis=1)), 1e-6)
    cosines = unit(embeddings) @ unit(embeddings).T
    kept = np.zeros(len(cosines), bool)
    order: list[int] = []
    while kept.sum() < keep:
        gains = np.empty(len(cosines))
        for token in np.flatnonzero(~kept):
            # The Schur complement, of which relevance is a factor.
            across = cosines[token, order]
            inverse = np.linalg.pinv(cosines[np.ix_(order, order)], rcond=1e-9, hermitian=True)
            gain = cosines[token, token] - across @ inverse @ across
            gains[token] = relevance[token] ** 2 * gain if gain > 1e-4 * cosines[token, token] else 0
        scores = np.where(kept, -np.inf, gains)
        best = scores.max()
        order.append(int(np.flatnonzero(scores >= best - 1e-5 * max(best, 0))[0]))
        kept[order[-1]] = True
    return np.flatnonzero(kept)


def visionzip(embeddings, keep, *, importance, **_):
    dominant, targets = visionzip_parts(len(embeddings), keep, importance)
    return np.sort(np.concatenate([dominant, targets]))


def visionzip_parts(count, keep, importance):
    most = -(-keep * 54 // 64)
    dominant = np.lexsort((np.arange(count), -np.asarray(importance)))[:most]
    rest = np.setdiff1d(np.arange(count), dominant)
    contextual = keep - most
    targets = rest[np.arange(contextual) * len(rest) // max(contextual, 1)]
    return dominant, targets


def visionzip_merged(visual, keep, importance):
    """The tokens that stay, in reading order, each target the mean of itself and of what it takes in."""
    dominant, targets = visionzip_parts(len(visual), keep, importance)
    merged = np.array(visual, np.float64)
    rest = np.setdiff1d(np.arange(len(visual)), np.concatenate([dominant, targets]))
    groups = {target: [target] for target in targets}
    ordered = np.sort(targets)
    for token in rest if len(targets) else []:
        cosines = unit(visual)[ordered] @ unit(visual)[token]
        groups[ordered[np.flatnonzero(cosines >= cosines.max() - 1e-7)[0]]].append(token)
    for target, members in groups.items():
        merged[target] = np.mean([visual[one] for one in members], axis=0)
    return merged[np.sort(np.concatenate([dominant, targets]))]


def top(importance, keep):
    """The highest; of equal ones the first."""
    return np.sort(np.argsort(-np.asarray(importance), kind="stable")[:keep])


def fastv(embeddings, keep, *, importance, **_):
    """Importance being the attention of the question's last token."""
    return top(importance, keep)


REFERENCES = {
    "divprune": divprune,
    "mmr": mmr,
    "cdpruner": cdpruner,
    "visionzip": visionzip,
    "fastv": fastv,
    "pyramiddrop": fastv,
}

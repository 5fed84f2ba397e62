"""PyramidDrop (arXiv:2410.17247): as `fastv`, behind a quarter, a half and three quarters of the decoder.

Fewer stay each time, in equal ratios: of an eighth of the tokens a half, a quarter, an eighth, as published
(`processing.token_budget.TokenBudget.counts_above`).
"""

from vlm_jax.models.token_reduction import fastv

choose = fastv.choose

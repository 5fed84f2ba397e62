"""From files on disk to the arrays that the training step reads.

Builds on `vlm_jax` and is never imported by it. Nothing is loaded here: import the module that is needed.
"""

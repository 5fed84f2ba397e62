"""The steps from a subject to questions about images. Each is a pure function of items and of what teachers answered.

An item is a JSON object. What a stage is, is `stage`'s; in which order they run, and where their items are kept, is
`data_pipeline.corpus.pipeline`'s.
"""

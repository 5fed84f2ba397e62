"""Which pairs are worth training on, a short file an idea.

    schema                    fields, lengths, a question that is one
    chain_of_thought          reasoning: steps and a final answer that is the short one
    language                  written in the language that it says
    image_mention             mentions: the article speaks of an image (SK-VQA's IR)
    answer_in_article         in_article: word for word (SK-VQA's CAP)
    answerable_without_image  samples: the student knows it from the question
    answerable_from_article   samples: or from the article
    consistent                samples: the teacher says it again
    judged                    verdicts: another model's
    near_fact                 similarity: of embeddings of answer and fact
    near_duplicate            near_text: asked already (canonical, minhash, guards)
    near_image                near_images: shown already

`applying.apply` applies those that are on and counts; `registry` says what each takes. No filter asks a model: what
models answered is brought as evidence. `negatives` makes pairs instead of dropping them, `retention` prints the table
of IR and CAP.
"""

from data_pipeline.corpus.filters.applying import Count, Dropped, Outcome, apply
from data_pipeline.corpus.filters.pair import Pair, from_record
from data_pipeline.corpus.filters.registry import FILTERS, default_settings, select
from data_pipeline.corpus.filters.verdicts import Verdict

__all__ = [
    "FILTERS",
    "Count",
    "Dropped",
    "Outcome",
    "Pair",
    "Verdict",
    "apply",
    "default_settings",
    "from_record",
    "select",
]

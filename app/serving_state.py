"""What all visitors of the page share: options, models, conversations and examples; made once a process, by `start`."""

import contextlib
import dataclasses
from collections.abc import Callable

from dialogue import Dialogue, Dialogues, Reply
from loaded_models import Models
from page_examples import Example, examples
from page_options import Options
from vlm_jax.errors import InputError
from vlm_jax.inference.answering import PromptTooLong


@dataclasses.dataclass(frozen=True, eq=False)
class Shared:
    options: Options
    models: Models
    examples: list[Example]
    dialogues: Dialogues = dataclasses.field(default_factory=Dialogues)


_started: list[Shared] = []


def start(options: Options, *, say: Callable[[str], None]) -> None:
    """Looks at all models, loads the first, and talks with it, which compiles its programs.

    Raises:
      InputError: what cannot be loaded, or read.
    """
    models = Models(options.models, in_memory=options.models_in_memory, options=options.load)
    found = examples(options.examples, options.models[0])
    name = models.names[0]
    say(f"loading {name}")
    model = models.get(name).model
    say("compiling its programs, which are kept for the next start")
    dialogue = Dialogue()
    with contextlib.suppress(PromptTooLong):  # of a model that reads little; visitors are told by their questions
        for number, example in enumerate((found[0], None, found[-1])):  # a picture, a follow-up, and another picture
            dialogue.add([] if example is None else [example.picture])
            turn = dialogue.ask(found[0].question)
            turn.replies[name] = Reply("".join(model.stream(dialogue.messages(name, number), options.max_new_tokens)))
    model.forget()
    _started[:] = [Shared(options, models, found)]
    say("ready")


def shared() -> Shared:
    """Raises InputError where the page was not started by app/chat.py."""
    if not _started:
        raise InputError("the page is started by streamlit run app/chat.py -- --model=PATH")
    return _started[0]

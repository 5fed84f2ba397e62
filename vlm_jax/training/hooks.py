"""What a run does between its steps: the loss on validation examples, samples, checkpoints, a profile, an early end.

Each is a hook: it says after which steps it is due, and is then given the state. The loop calls them in order, and at
the end of a run in the opposite one.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlm_jax.checkpoint.run_folder import Checkpoints
from vlm_jax.checkpoint.workdir import Workdir
from vlm_jax.models.parameters import Flat
from vlm_jax.training.log import RunLog
from vlm_jax.training.run_state import RunState
from vlm_jax.training.trainer import Trainer

PROFILED = 3
"""Steps that a profile covers."""


class Hook:
    """Called by the loop before, between and after steps. As it is, it does nothing."""

    def begin(self, state: RunState) -> None:
        """Before the first step, and before it is compiled: `state.ended` means that there will be none."""

    def before(self, state: RunState) -> None:
        """Before every step; `state.step` are done, and the loss of the last one may not be known yet."""

    def due(self, step: int) -> bool:
        """Whether it has something to do after so many steps, which are not all of the run's."""
        return False

    def __call__(self, state: RunState) -> None:
        """Does it; `state.step` steps are done, and the losses of all are known."""

    def end(self, state: RunState, *, stopped: bool) -> None:
        """When the run ends after `state.step` steps, by itself or because a person `stopped` it; not after errors."""


@dataclasses.dataclass(frozen=True)
class Measures:
    """How good a model is on validation examples.

    Attributes:
      loss: of all parameters.
      score: the mean score of the model's own answers after so many steps, 0 to 1; None: it is not asked.
      metric: of that score.
    """

    loss: Callable[[Flat], float]
    score: Callable[[int, Flat], float] | None = None
    metric: str = ""

    @property
    def best(self) -> str:
        """What is said of the best of them."""
        return f"highest score ({self.metric}) of" if self.score else "lowest loss on"


class Validation(Hook):
    """The loss on validation examples, and the score of answers to them where a metric of answers is set.

    Attributes:
      step: after how many steps they were last taken.
      losses, scores: all that were taken, those of an earlier part of the run included.
    """

    def __init__(
        self,
        measures: Measures,
        *,
        every: int,
        log: RunLog,
        earlier: Sequence[float] = (),
        earlier_scores: Sequence[float] = (),
    ):
        self._measures, self._every, self._log = measures, every, log
        self.step: int | None = None
        self.losses, self.scores = list(earlier), list(earlier_scores)

    @property
    def shortfalls(self) -> list[float]:
        """What is least where the model is best: the losses, or what the scores lack of 1."""
        return [1 - score for score in self.scores] if self._measures.score else self.losses

    def due(self, step: int) -> bool:
        return _at(self._every, step)

    def __call__(self, state: RunState) -> None:
        if self.step == state.step:
            return
        self.losses.append(self._measures.loss(state.parameters))
        if self._measures.score:
            self.scores.append(self._measures.score(state.step, state.parameters))
        self.step = state.step
        score = self.scores[-1] if self._measures.score else None
        self._log.validation(state.step, self.losses[-1], score, self._measures.metric)

    def best(self) -> str:
        """The best so far, in words."""
        place = int(np.argmin(self.shortfalls))
        if self._measures.score:
            return f"the {self._measures.metric} score of validation answers was highest ({self.scores[place]:.1%})"
        return f"the validation loss was lowest ({self.losses[place]:.4f})"


class EarlyStop(Hook):
    """Ends a run that was not better on validation examples than before for so many times in a row."""

    def __init__(self, validation: Validation, *, patience: int, log: RunLog):
        self._validation, self._patience, self._log = validation, patience, log
        self._seen: int | None = None

    def begin(self, state: RunState) -> None:
        state.ended = self.over

    def due(self, step: int) -> bool:
        return self._validation.step is not None and self._validation.step != self._seen

    def __call__(self, state: RunState) -> None:
        self._seen = self._validation.step
        if self.over:
            self._log.say(
                f"step {state.step}: {self._validation.best()} {self._since_best} times ago; the run ends here "
                "(validation.patience)"
            )
            state.ended = True

    @property
    def over(self) -> bool:
        return bool(self._validation.shortfalls) and self._since_best >= self._patience

    @property
    def _since_best(self) -> int:
        shortfalls = self._validation.shortfalls
        return len(shortfalls) - 1 - int(np.argmin(shortfalls))


class Samples(Hook):
    """Answers of the model as it is, which `sample(step, parameters)` writes."""

    def __init__(self, sample: Callable[[int, Flat], None], *, every: int):
        self._sample, self._every, self._begun = sample, every, 0

    def begin(self, state: RunState) -> None:
        self._begun = state.step

    def due(self, step: int) -> bool:
        return _at(self._every, step)

    def __call__(self, state: RunState) -> None:
        self._sample(state.step, state.parameters)

    def end(self, state: RunState, *, stopped: bool) -> None:
        if not stopped and state.step > self._begun:
            self(state)


class Saving(Hook):
    """Checkpoints: not while steps are skipped, but after the first that is finite again.

    Attributes:
      saved: the step of the newest checkpoint; None where there is none.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        trainer: Trainer,
        workdir: Workdir,
        settings: dict[str, Any],
        *,
        every: int,
        done: int,
        validation: Validation | None,
    ):
        """`settings`: what every checkpoint says of the run; `every`: so many steps, 0 for none but the last."""
        self._every = every
        self._checkpoints, self._trainer, self._workdir = checkpoints, trainer, workdir
        self._settings, self._validation = settings, validation
        self.saved = done if done else None
        self._owed = False

    def due(self, step: int) -> bool:
        return self._owed or _at(self._every, step)

    def __call__(self, state: RunState) -> None:
        self._owed = bool(state.skipped)
        if not self._owed:
            self.save(state)

    def end(self, state: RunState, *, stopped: bool) -> None:
        # One who asks a run to stop does not wait for all validation examples.
        self.save(state, measured=not stopped)

    def save(self, state: RunState, *, measured: bool = True) -> None:
        """Saves what the state is now, unless that is saved.

        Args:
          measured: whether validation examples are looked at for it: one who asks a run to stop does not wait.
        """
        if state.step == self.saved:
            return
        loss = float(np.mean(state.losses)) if state.losses else None
        if self._validation is not None:
            if measured:
                self._validation(state)
            loss = self._validation.shortfalls[-1] if self._validation.step == state.step else None
        self._workdir.sync()  # a checkpoint is never ahead of the metrics
        stages = self._trainer.stages
        progress = {
            "step": state.step,
            "steps": self._trainer.steps,
            "first_stage": stages[0].end if len(stages) > 1 else 0,
            "validation_losses": list(self._validation.losses) if self._validation is not None else [],
            "validation_scores": list(self._validation.scores) if self._validation is not None else [],
        }
        self._checkpoints.save(
            state.step,
            self._trainer.saved(state.parameters),
            {**self._settings, **progress},
            optimizer=state.optimizer_state,
            data=state.position,
            loss=loss,
        )
        self.saved, state.losses = state.step, []

    def wait(self) -> None:
        """Returns when what is being saved is saved."""
        self._checkpoints.wait()


class Profile(Hook):
    """A trace of a few steps for XLA's profiler, from the step that `log.profile` names."""

    def __init__(self, first: int, folder: Path, log: RunLog, shown: Any):
        """`shown`: the folder as a person knows it."""
        self._first, self._folder, self._log, self._shown = first, folder, log, shown
        self._begun: int | None = None  # the step, counted from 0, at which the trace began

    def before(self, state: RunState) -> None:
        if state.step + 1 == self._first:
            jax.profiler.start_trace(str(self._folder))
            self._begun = state.step

    def due(self, step: int) -> bool:
        return self._begun is not None and step == self._begun + PROFILED

    def __call__(self, state: RunState) -> None:
        """Writes down what was traced; also where a run ends or stops in the middle of it."""
        if self._begun is not None:
            jax.block_until_ready(state.trainable)
            jax.profiler.stop_trace()
            self._begun = None
            self._log.say(f"profile: {self._shown}, for XProf or a TensorBoard with its plugin")

    def end(self, state: RunState, *, stopped: bool) -> None:
        self(state)


def _at(every: int, step: int) -> bool:
    return bool(every) and step % every == 0

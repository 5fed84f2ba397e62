"""What every teacher is: something that is sent a request and answers it, or says by a known reason why not."""

import abc
from collections.abc import Mapping
from typing import Any, ClassVar

from data_pipeline.teachers.request import Kind, Reply, Request


class Teacher(abc.ABC):
    """One model behind one address.

    Attributes:
      model: its name, part of the key of every request.
      at_once: the most calls on their way.
      most_output: tokens that an answer has at most; what is not said is so long at most.
      requests, tokens: a minute, 0 for no limit.
      batch_folder: where batch jobs have their files; "" where it is asked call by call.
    """

    takes: ClassVar[tuple[Kind, ...]] = ("text",)
    """Which kinds of request it answers."""
    model: str
    at_once: int = 1
    most_output: int = 0
    requests: int = 0
    tokens: int = 0
    batch_folder: str = ""

    def parameters(self, kind: Kind) -> Mapping[str, Any]:
        """Of its settings, those that decide an answer of this kind."""
        return {}

    def ready(self) -> None:  # noqa: B027 - most need nothing
        """Looks whether it can be asked at all, before anything is: its package is there, and its key.

        Raises:
          InputError: it cannot.
        """

    @abc.abstractmethod
    async def send(self, request: Request) -> Reply:
        """One call, sent once.

        Raises:
          CallFailed: there is no answer that can be used; no other exception means that.
        """

    async def close(self) -> None:  # noqa: B027 - most hold nothing
        """Gives back what it holds. It may be sent requests again afterwards."""

"""Two sides of a comparison, each in a process of its own, so that neither's memory or threads are the other's."""

import importlib
import multiprocessing
import traceback
from typing import Any


def work(module: str, settings: Any, pipe) -> None:
    """A side's process: makes `module.Side(settings)`, then answers calls until the pipe closes."""
    try:
        made = importlib.import_module(module).Side(settings)
        pipe.send((True, None))
        while call := pipe.recv():
            name, arguments = call
            pipe.send((True, getattr(made, name)(*arguments)))
    except EOFError:
        pass
    except BaseException as error:
        traceback.print_exc()
        pipe.send((False, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"))


class Worker:
    """A side; calls of it are calls of its methods."""

    def __init__(self, module: str, settings: Any):
        """Raises RuntimeError, as calls do, with what the side raised."""
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=work, args=(module, settings, far), daemon=True)
        self._process.start()
        far.close()
        self._answer()

    def _answer(self):
        try:
            sound, found = self._pipe.recv()
        except EOFError:
            raise RuntimeError("its process ended (out of memory?)") from None
        if not sound:
            raise RuntimeError(found)
        return found

    def __call__(self, name: str, *arguments):
        self._pipe.send((name, arguments))
        return self._answer()

    def close(self) -> None:
        self._pipe.close()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()

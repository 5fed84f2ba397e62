"""Ctrl-C from the first instruction on: imported before anything that takes time.

While a library loads, nothing is half-done, and the process ends at once: an exception in the middle of an import is a
traceback, a crash of compiled code, or lost. Otherwise it is KeyboardInterrupt, as everywhere. Where that falls into a
callback of the interpreter, which cannot raise (JAX has one in the garbage collector), Python prints it and goes on: it
is sent again a moment later instead.
"""

import importlib.util
import os
import signal
import sys
import threading

if importlib.util.find_spec("absl") is None or importlib.util.find_spec("jax") is None:
    _here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.exit(
        f"error: {sys.executable} lacks what this needs; run make setup in {_here}, and start programs with "
        f"{os.path.relpath(os.path.join(_here, '.venv', 'bin', 'python'))}"
    )

STATUS = 130
"""Of a process that Ctrl-C ended, as shells have it."""
_AGAIN = 0.05
_ENDED = "Event loop is closed"
"""What threads of TensorStore print for each write of a save that failed. Why it failed, on a full disk say, is raised
where the save is waited for."""


_begun = False


def begin() -> None:
    """The program's own imports are done: from here on somebody catches what is raised."""
    global _begun
    _begun = True


def _interrupted(number, frame) -> None:
    if _begun and not _imports(frame):
        raise KeyboardInterrupt
    os.write(2, b"error: interrupted\n")
    os._exit(STATUS)


def _imports(frame) -> bool:
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def leave(status: int) -> None:
    """Ends the process. One that was interrupted ends without the interpreter's tidying, in which what XLA compiles on
    threads of its own would crash it; what was being written has been dealt with by then."""
    if status != STATUS:
        sys.exit(status)
    end(status)


def end(status: int) -> None:
    """Ends the process at once, whatever its threads compute."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads any more
            pass
    if "multiprocessing" in sys.modules:
        for worker in sys.modules["multiprocessing"].active_children():
            worker.terminate()
    os._exit(status)


def _not_raised(unraisable, /) -> None:
    if unraisable.exc_type is KeyboardInterrupt:
        again = threading.Timer(_AGAIN, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
        again.daemon = True
        again.start()
    elif not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == _ENDED):
        _print(unraisable)


_print = sys.unraisablehook
_program = os.path.abspath(getattr(sys.modules["__main__"], "__file__", None) or "")
if os.path.dirname(_program) == os.path.dirname(os.path.abspath(__file__)):  # not where a script is imported
    sys.unraisablehook = _not_raised
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as nohup has it
        signal.signal(signal.SIGINT, _interrupted)

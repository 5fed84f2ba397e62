"""Signals that ask a program to stop, sent to this process."""

import signal
import threading

import pytest

from vlm_jax import stop_signals


def test_signals_are_noted_and_those_before_come_back():
    before = [signal.getsignal(number) for number in stop_signals.ASKING]
    with stop_signals.noted(insists=True) as signals:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signals == [signal.SIGTERM, signal.SIGTERM]
    assert [signal.getsignal(number) for number in stop_signals.ASKING] == before


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_a_termination_is_raised_as_ctrl_c_is(handler):
    before, term = signal.signal(signal.SIGINT, handler), signal.getsignal(signal.SIGTERM)
    try:
        with stop_signals.as_ctrl_c(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.getsignal(signal.SIGTERM) is term


def test_a_termination_goes_to_what_handles_ctrl_c():
    came = []
    before = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    try:
        with stop_signals.as_ctrl_c():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)
    assert came == [signal.SIGINT]


def test_in_another_thread_signals_are_left_alone():
    before, found = signal.getsignal(signal.SIGINT), []

    def work():
        with stop_signals.noted() as signals:
            found.append((list(signals), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], before)]

"""SIGTERM and Ctrl-C: in the loop of a run they wait until its state is saved; elsewhere they end the program."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

_ENDING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Within it SIGTERM and Ctrl-C do not end the program. It gives a function, which returns the number of the first
    signal received, or 0. A second Ctrl-C raises KeyboardInterrupt."""
    received: list[int] = []

    def receive(number, frame):
        if number in received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, receive) for number in _ENDING}
    told = signal.set_wakeup_fd(-1)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told)
    if received:  # after the function was last called
        signal.raise_signal(received[0])


@contextlib.contextmanager
def ending_at_signals() -> Iterator[None]:
    """Within it SIGTERM and Ctrl-C end the program at once, with a message of one line and the exit code 143 or 130.

    A thread does this, since the main thread may be in a compilation, which Python cannot interrupt. Files are written
    whole or not at all, so nothing has to be tidied up. Only the main thread may call this.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def wait():
        while number := os.read(reading, 1):
            if number[0] in _ENDING:
                _end(number[0])
        os.close(reading)

    before = {number: signal.signal(number, lambda number, frame: None) for number in _ENDING}
    told = signal.set_wakeup_fd(writing)
    threading.Thread(target=wait, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:  # the second Ctrl-C within `stop_signals`
        _end(signal.SIGINT)
    finally:
        signal.set_wakeup_fd(told)
        os.close(writing)
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int) -> None:
    """Ends the program with the exit code of a signal and a message of one line."""
    what = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    print(f"\nended by {what}; the same command resumes a run that has begun", file=sys.stderr, flush=True)
    os._exit(128 + number)

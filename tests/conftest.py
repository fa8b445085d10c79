"""What every test may rely on."""

from __future__ import annotations

import signal
import threading


def pytest_configure() -> None:
    """See to it that Ctrl-C works in the processes that the tests start.

    A shell starts its background jobs with SIGINT ignored, which every child inherits.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)

"""What every test may rely on, and `--budget`, which bounds a run of the deep ones."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

_SEED = "COSESSION_TEST_ORDER"
"""Where the first process of a test run leaves the order for the others."""

_began = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="begin no test after so many seconds, and begin them in another order every day",
    )


def pytest_configure(config: pytest.Config) -> None:
    """See to it that Ctrl-C works in the processes that the tests start.

    A shell starts its background jobs with SIGINT ignored, which every child inherits.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.getoption("--budget") is not None:
        os.environ.setdefault(_SEED, time.strftime("%Y%m%d"))


def pytest_report_header(config: pytest.Config) -> str | None:
    budget = config.getoption("--budget")
    if budget is None:
        return None
    return f"budget: {budget:g} s, in the order of {_SEED}={os.environ[_SEED]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--budget") is not None:
        random.Random(os.environ[_SEED]).shuffle(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    budget = item.config.getoption("--budget")
    if budget is not None and time.monotonic() - _began > budget:
        pytest.skip(f"the budget of {budget:g} s is used up")

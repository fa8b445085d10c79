"""What every test may rely on."""

from __future__ import annotations

import os
import random
import signal
import threading

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--random-seed", type=int, default=random.randrange(1_000_000), help="of the deep tests"
    )
    parser.addoption(
        "--deep-seconds",
        type=float,
        default=float(os.environ.get("COSESSION_DEEP_SECONDS", "60")),
        help="how long a deep test goes on that has no end of its own",
    )


@pytest.fixture
def random_seed(request: pytest.FixtureRequest) -> int:
    """A number that is another one in each run; a failure is had again with `--random-seed`."""
    seed: int = request.config.getoption("--random-seed")
    print(f"--random-seed={seed}")
    return seed


@pytest.fixture
def deep_seconds(request: pytest.FixtureRequest) -> float:
    """The budget of a deep test, from `--deep-seconds` or `COSESSION_DEEP_SECONDS`."""
    seconds: float = request.config.getoption("--deep-seconds")
    return seconds


def pytest_configure() -> None:
    """See to it that Ctrl-C works in the processes that the tests start.

    A shell starts its background jobs with SIGINT ignored, which every child inherits.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)

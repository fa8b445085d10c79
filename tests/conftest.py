"""What every test may rely on, and the options that bound and repeat a run of the deep ones."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

_ORDER = "COSESSION_TEST_ORDER"
"""Where the first process of a test run leaves the order for the others."""

_began = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="begin no test after so many seconds, and begin them in another order every day",
    )
    parser.addoption(
        "--deep-seconds",
        type=float,
        default=float(os.environ.get("COSESSION_DEEP_SECONDS", "60")),
        metavar="SECONDS",
        help="how long a deep test goes on that has no end of its own",
    )
    parser.addoption(
        "--random-seed", type=int, default=random.randrange(1_000_000), help="of the deep tests"
    )


def pytest_configure(config: pytest.Config) -> None:
    """See to it that Ctrl-C works in the processes that the tests start, and that they are quick.

    A shell starts its background jobs with SIGINT ignored, which every child inherits.
    """
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Hundreds of processes are started: without it each would compile all that it imports.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Nor need each read what all installed packages say of themselves, to find plugins of pydantic.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    if config.getoption("--budget") is not None:
        os.environ.setdefault(_ORDER, time.strftime("%Y%m%d"))


def pytest_report_header(config: pytest.Config) -> str | None:
    budget = config.getoption("--budget")
    if budget is None:
        return None
    return f"budget: {budget:g} s, in the order of {_ORDER}={os.environ[_ORDER]}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--budget") is not None:
        random.Random(os.environ[_ORDER]).shuffle(items)


def pytest_runtest_setup(item: pytest.Item) -> None:
    budget = item.config.getoption("--budget")
    if budget is not None and time.monotonic() - _began > budget:
        pytest.skip(f"the budget of {budget:g} s is used up")


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

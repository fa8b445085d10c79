"""Workloads that differ in size only: a table and a plot for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workloads.appending import RATE
from workloads.base import Column
from workloads.growing import COST
from workloads.opening import SECONDS


@dataclass(frozen=True)
class Series:
    """What is shown of them."""

    name: str
    title: str
    row: str
    """What the columns of the table are."""
    column: Column
    label: Callable[[float], str]


def bytes_of(size: float) -> str:
    """A size as people write it."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:g} {unit}"
    return f"{size:g} bytes"


SERIES = (
    Series(
        "processes", "Throughput, by the number of processes, os", "messages per second", RATE,
        "{:g}".format,
    ),
    Series("open", "Opening, by size", "s until the last message is there", SECONDS, bytes_of),
    Series(
        "grown", "The cost of an append, by what is there already", "p50, ms", COST, bytes_of
    ),
)  # fmt: skip

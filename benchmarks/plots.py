"""The plots, as SVG. Grey text on no background reads on a light page and on a dark one.

Ours are drawn thick, the bare system dotted (with its lock dots and dashes), and whoever blocks the
event loop dashed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contenders.base import Contender
from report import Report
from series import SERIES, Series

GREY = "#808890"

SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
"""Of the appends: those that took at most so long."""

Points = list[tuple[float, float]]


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw what there are figures for; the files that were made."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for series, axis, name in (
        (SERIES[0], "messages per second", "throughput"),
        (SERIES[1], "seconds until the last message is there", "opening"),
        (SERIES[2], "ms for an append, p50", "growing"),
    ):
        members = report.members(series)
        if len(members) > 1:
            made.append(_draw_series(report, series, axis, folder / f"{name}.svg"))
    if report.outcomes.get("processes-os"):
        made.append(_draw_latencies(report, folder / "latency.svg"))
    return made


def _draw_series(report: Report, series: Series, axis: str, path: Path) -> Path:
    members = report.members(series)

    def points(name: str) -> Points:
        found = []
        for workload in members:
            outcome = report.outcomes[workload.name].get(name)
            value = outcome.median(series.column.figure) if outcome else None
            if value:
                found.append((workload.at, value))
        return found

    with _axes(path, series.title, members[0].axis, axis) as axes:
        at = [workload.at for workload in members]
        _ticks(axes, at, [series.label(place) for place in at])
        _lines(axes, report, points, shared=members[-1].shared)
    return path


def _draw_latencies(report: Report, path: Path) -> Path:
    outcomes = report.outcomes["processes-os"]
    title = next(w.title for w in report.workloads if w.name == "processes-os")

    def points(name: str) -> Points:
        histogram = outcomes[name].histogram if name in outcomes else None
        if not histogram:
            return []
        return [(1 / (1 - share), histogram.quantile(share)) for share in SHARES]

    quicker = "of 1000 appends, so many took that long at most"
    with _axes(path, f"How long an append takes: {title}", quicker, "ms for an append") as axes:
        shown = (0.5, 0.9, 0.99, 0.999)
        _ticks(axes, [1 / (1 - share) for share in shown], [f"{1000 * s:g}" for s in shown])
        _lines(axes, report, points, shared=True)
    return path


def _lines(axes: Any, report: Report, points_of: Callable[[str], Points], *, shared: bool) -> None:
    for name, contender in report.contenders.items():
        points = points_of(name) if contender.colour else []
        if points:
            unsafe = shared and not contender.shares and not contender.bare
            axes.plot(
                *zip(*points, strict=True),
                style_of(contender),
                color=contender.colour,
                linewidth=3 if contender.ours else 1.4,
                zorder=3 if contender.ours else 2,
                marker="o",
                markersize=5 if contender.ours else 3,
                label=f"{contender.title} (no lock)" if unsafe else contender.title,
            )
    axes.legend(
        loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, labelcolor=GREY, fontsize=9
    )


def style_of(contender: type[Contender]) -> str:
    """How its line is drawn."""
    if contender.bare:
        return "-." if contender.shares else ":"
    return "--" if contender.blocks else "-"


def _ticks(axes: Any, at: Sequence[float], labels: Sequence[str]) -> None:
    axes.set_xticks(at, labels)
    axes.minorticks_off()


@contextmanager
def _axes(path: Path, title: str, x: str, y: str) -> Iterator[Any]:
    """Two logarithmic axes, kept as a picture at the end."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import FuncFormatter

    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "cosession"}
    figure, axes = plt.subplots(figsize=(9, 4.6))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(title, color=GREY, fontsize=12, loc="left")
    axes.set_xlabel(x, color=GREY)
    axes.set_ylabel(y, color=GREY)
    yield axes
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.tick_params(colors=GREY, which="both")
    axes.grid(visible=True, axis="both", which="major", color=GREY, alpha=0.25)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.savefig(path, transparent=True, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)

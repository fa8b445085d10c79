"""The page of the documentation that has the figures."""

from __future__ import annotations

from pathlib import Path

from place import Place
from report import Report

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


CAPTIONS = {
    "throughput": "Messages per second, by the number of processes",
    "latency": "How long an append takes, by percentile",
    "opening": "Seconds to open a session, by its size",
    "growing": "What an append costs, by the size of the session",
}


def write(report: Report, place: Place, page: Path = PAGE) -> None:
    """Put the tables between the marks, and the plots in the folder beside the page."""
    from plots import draw

    drawn = draw(report, page.with_suffix(""))
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [
        "\n".join(f"- {line}" for line in place.lines()),
        report.summary(),
        *(f"![{CAPTIONS[plot.stem]}]({page.stem}/{plot.name})" for plot in drawn),
        "Appends that block their thread, for programs without an event loop:",
        report.blocking_summary(),
        report.details(),
    ]
    figures = "\n\n".join(part.strip() for part in parts)
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")

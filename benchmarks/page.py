"""The page of the documentation that has the figures."""

from __future__ import annotations

from pathlib import Path

from place import Place
from report import Report

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def write(report: Report, place: Place, page: Path = PAGE) -> None:
    """Put the tables between the marks, and the plots in the folder beside the page."""
    from plots import draw

    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    draw(report, page.with_suffix(""))
    page.write_text(f"{before}{BEGIN}\n{_figures(report, place)}\n{END}{after}", encoding="utf-8")


def _figures(report: Report, place: Place) -> str:
    parts = [
        "\n".join(f"- {line}" for line in place.lines()),
        report.summary(),
        "Appends that block their thread, for programs without an event loop:",
        report.blocking_summary(),
        report.details(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"

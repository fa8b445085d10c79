"""What of the documentation has the figures: a page of its own, and the README's summary."""

from __future__ import annotations

from pathlib import Path

from place import Place
from report import Report

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


CAPTIONS = {
    "throughput": "Messages per second, by the number of processes",
    "latency": "How long an append takes, by percentile",
    "opening": "Seconds to open a session, by its size",
    "growing": "What an append costs, by the size of the session",
}


def write(report: Report, place: Place, page: Path = PAGE, readme: Path = README) -> None:
    """Put the tables between the marks of both, and the plots in the folder beside the page."""
    from plots import draw

    drawn = {plot.stem: plot for plot in draw(report, page.with_suffix(""))}
    machine = "\n".join(f"- {line}" for line in place.lines())

    def shown(name: str, folder: str) -> str:
        return f"![{CAPTIONS[name]}]({folder}{page.stem}/{drawn[name].name})"

    put(
        page,
        [
            machine,
            report.summary(),
            *(shown(name, "") for name in drawn),
            "Appends that block their thread, for programs without an event loop:",
            report.blocking_summary(),
            report.details(),
        ],
    )
    shown_first = [name for name in ("throughput", "growing") if name in drawn]
    put(readme, [machine, report.summary(), *(shown(name, "docs/") for name in shown_first)])


def put(page: Path, parts: list[str]) -> None:
    """Replace what is between the marks.

    Raises:
        ValueError: The page has none.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no place for figures")
    figures = "\n\n".join(part.strip() for part in parts)
    page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")

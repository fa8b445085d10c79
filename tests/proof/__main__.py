"""Make the table of docs/testing.md.

    uv run python -m proof                     default tests and broken variants, in half an hour
    uv run python -m proof deep                the deep tests, in some hours
    uv run python -m proof tests broken deep   which of these three
    uv run python -m proof --only METHOD …     of some methods only
    uv run python -m proof --write             and write the figures to the page
    uv run python -m proof --show              the table with the figures that there are

Run from `tests`. Exit status 1: something failed, or a broken variant was not caught; that is
written as well.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial

from . import page, running
from .broken import FAMILIES
from .methods import METHODS

PARTS = ("tests", "broken", "deep")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m proof",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--only", action="append", choices=METHODS, metavar="METHOD", default=[])
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--show", action="store_true")
    options = parser.parse_args()
    parts = options.parts or ["tests", "broken"]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")

    figures = page.load()
    page.tidy(figures)
    fine = True
    for step in [] if options.show else _steps(parts, options.only):
        fine &= step(figures)
        if options.write:
            page.save(figures)  # a run that is cut short keeps what it has
    print(page.rendered(figures))
    if options.write:
        page.save(figures)
    return not fine


def _steps(parts: list[str], only: list[str]) -> Iterator[Callable[[page.Figures], bool]]:
    for name in only or METHODS:
        if "tests" in parts:
            yield partial(_try, name, deep=False)
        if "deep" in parts:
            yield partial(_try, name, deep=True)
    if "broken" in parts:
        for family in FAMILIES:
            yield partial(_break, family, only)


def _try(name: str, figures: page.Figures, *, deep: bool) -> bool:
    """Run a method's tests; whether all is well."""
    which = "deep" if deep else "default"
    try:
        tried = running.run(METHODS[name], deep=deep)
    except LookupError as reason:
        print(f"{name}: left as it was: {reason}", flush=True)
        return True
    if tried is None:
        print(f"{name}, {which}: no such tests", flush=True)
    else:
        print(
            f"{name}, {which}: {tried.tried} {METHODS[name].unit} in {tried.tests} tests, "
            f"{tried.skipped} skipped, {len(tried.failed)} failed; {tried.seconds:.0f} s",
            *tried.failed,
            sep="\n  ",
            flush=True,
        )
        if not tried.tests:
            return True  # all are skipped here: what was found elsewhere stays
    page.note_tried(figures, name, which, tried)
    return tried is None or not tried.failed


def _break(family: str, only: list[str], figures: page.Figures) -> bool:
    """Run a family's broken variants; whether all of them were caught."""
    fine, kept = True, FAMILIES[family]
    names = [name for name, variant in kept.variants.items() if not only or variant.method in only]
    for name, verdict in kept.run(names) if names else ():
        if verdict.said.startswith("LookupError('no Windows"):
            print(f"{name}: left as it was: {verdict.said}", flush=True)
            continue
        said = "caught" if verdict.caught else f"MISSED {verdict.said}"
        print(f"{family}: {name}: {said}; {verdict.seconds:.0f} s", flush=True)
        fine &= verdict.caught
        page.note_verdict(figures, family, name, verdict)
    return fine


if __name__ == "__main__":
    sys.exit(main())

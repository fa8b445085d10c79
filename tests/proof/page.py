"""The figures of the last runs, and the part of docs/testing.md that shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .broken import FAMILIES, Variant, Verdict
from .methods import METHODS, Method
from .promises import PROMISES
from .running import Tried

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "testing.md"
FIGURES = DOCS / "testing.json"

BEGIN = "<!-- Written by `python -m proof --write`, from here … -->"
END = "<!-- … to here. -->"

Figures = dict[str, Any]
"""`methods`: by name and `default` or `deep`, a `Tried`; `broken`: by family and name, whether it
was caught and how many seconds that took.
"""


def load() -> Figures:
    """What the last runs came to."""
    if not FIGURES.exists():
        return {"methods": {}, "broken": {}}
    found: Figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return found


def save(figures: Figures) -> None:
    """Keep the figures, and show them on the page."""
    text = json.dumps(figures, indent=1, ensure_ascii=False, sort_keys=True)
    FIGURES.write_text(text + "\n", encoding="utf-8")
    before, _, behind = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    behind = behind.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{rendered(figures)}{END}{behind}", encoding="utf-8")


def note_tried(figures: Figures, method: str, which: str, tried: Tried | None) -> None:
    """Keep what a method's tests came to; `None` if it has no such tests."""
    kept = figures["methods"].setdefault(method, {})
    if tried is None:
        kept.pop(which, None)
    else:
        kept[which] = asdict(tried) | {"seconds": _rounded(tried.seconds)}


def note_verdict(figures: Figures, family: str, name: str, verdict: Verdict) -> None:
    """Keep what became of a broken variant."""
    kept = figures["broken"].setdefault(family, {})
    kept[name] = {"caught": verdict.caught, "seconds": _rounded(verdict.seconds)}


def tidy(figures: Figures) -> None:
    """Forget methods, families and variants that there are no more."""
    figures["methods"] = {
        name: kept for name, kept in figures["methods"].items() if name in METHODS
    }
    figures["broken"] = {
        family: {name: it for name, it in kept.items() if name in FAMILIES[family].variants}
        for family, kept in figures["broken"].items()
        if family in FAMILIES
    }


def variants(method: str = "", promise: int = 0) -> Iterator[tuple[str, str, Variant]]:
    """Family, name and variant of all, or of those of a method, that break a promise."""
    for family, kept in FAMILIES.items():
        for name, variant in kept.variants.items():
            if method in ("", variant.method) and (not promise or promise in variant.breaks):
                yield family, name, variant


# ---- the page -----------------------------------------------------------------------------------


def rendered(figures: Figures) -> str:
    """The tables."""
    lines = [
        "| promise | method | tried by default | tried by the deep runs | broken variants caught |",
        "|---|---|--:|--:|--:|",
    ]
    for number, promise in PROMISES.items():
        for name, method in METHODS.items():
            if number in method.promises and not _is_silent(figures, name, promise):
                shown = [_tried(figures, name, which, promise) for which in ("default", "deep")]
                caught = _caught(figures, name, number)
                lines.append(f"| {number}. {promise} | {name} | {' | '.join(shown)} | {caught} |")
    lines += [
        "",
        "| method | what it tries | seconds | deep | variants |",
        "|---|---|--:|--:|--:|",
    ]
    for name, method in METHODS.items():
        seconds = [_seconds(figures, name, which) for which in ("default", "deep")]
        seconds.append(_seconds_of_variants(figures, name))
        lines.append(f"| {name} | {method.does} | {' | '.join(seconds)} |")
    lines += [
        "",
        "| broken variants | command, in `tests` | caught |",
        "|---|---|--:|",
    ]
    for family, kept in FAMILIES.items():
        verdicts = figures["broken"].get(family, {})
        caught = sum(verdict["caught"] for verdict in verdicts.values())
        lines.append(f"| {family} | `{kept.command}` | {caught} of {len(kept.variants)} |")
    return "\n".join(lines) + "\n"


def _is_silent(figures: Figures, name: str, promise: str) -> bool:
    """Whether the method's tests say which promises they are about, and this isn't one."""
    runs = figures["methods"].get(name, {}).values()
    said = [run["by_promise"] for run in runs if run["by_promise"]]
    return bool(said) and not any(promise in one for one in said)


def _tried(figures: Figures, name: str, which: str, promise: str) -> str:
    run = figures["methods"].get(name, {}).get(which)
    if run is None:
        return "–"
    tried = run["by_promise"].get(promise) or run["tried"]
    if run["by_promise"] and promise not in run["by_promise"]:
        return "–"
    about = ""
    if which in METHODS[name].timed:
        about, tried = "about ", int(float(f"{tried:.3g}"))
    unit = METHODS[name].unit
    return f"{about}{tried:,} {unit if tried != 1 else unit.removesuffix('s')}"


def _caught(figures: Figures, name: str, promise: int) -> str:
    verdicts = [
        figures["broken"].get(family, {}).get(variant, {"caught": False})["caught"]
        for family, variant, _ in variants(name, promise)
    ]
    return f"{sum(verdicts)} of {len(verdicts)}" if verdicts else "–"


def _seconds(figures: Figures, name: str, which: str) -> str:
    run = figures["methods"].get(name, {}).get(which)
    return "–" if run is None else f"{run['seconds']:,}"


def _seconds_of_variants(figures: Figures, name: str) -> str:
    all_of_it = [
        figures["broken"].get(family, {}).get(variant, {}).get("seconds", 0)
        for family, variant, _ in variants(name)
    ]
    return f"{round(sum(all_of_it)):,}" if all_of_it else "–"


def _rounded(seconds: float) -> int:
    return max(1, round(seconds))


def methods_named(names: list[str]) -> dict[str, Method]:
    """Those methods, or all."""
    return {name: METHODS[name] for name in names or METHODS}

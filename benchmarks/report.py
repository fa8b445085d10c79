"""The tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from contenders.base import Contender
from results import Outcome, Outcomes, Standing, ratio
from series import SERIES, Series
from workloads.base import Column, Goal, Question, Workload

OWN, BLOCKING = "cosession", "cosession-blocking"
FAMILIAR = "kimi"
"""The program that cosession is first of all for: it has a column of its own."""


Verdict = tuple[str, bool | None]
"""What is asked for and reached, and whether that is enough; `None` if nobody knows."""


@dataclass(frozen=True)
class Report:
    """All that was measured in one run."""

    workloads: list[Workload]
    outcomes: Mapping[str, Outcomes]
    contenders: Mapping[str, type[Contender]]

    # ---- one line for each question -----------------------------------------------------------

    def summary(self) -> str:
        """What is asked for, and what cosession reaches."""
        rows = [["workload", "limit", "best correct peer", "kimi-cli", "cosession", "goal", ""]]
        for standing, question in self._standings(OWN):
            goals = [self.verdict(goal, standing) for goal in question.goals]
            rows.append(
                [
                    question.title,
                    self._figure(standing, standing.limit()),
                    self._best(standing),
                    self._figure(standing, FAMILIAR),
                    self._figure(standing, OWN),
                    "; ".join(f"{text} ✗" if met is False else text for text, met in goals),
                    mark_of([met for _, met in goals]),
                ]
            )
        return table(rows, left=(0, 2, 5)) if len(rows) > 1 else ""

    def blocking_summary(self) -> str:
        """The same for appends that block their thread, which only some programs can use."""
        rows = [["workload", "limit", "best correct peer", "BlockingSession", "× the peer"]]
        for standing, question in self._standings(BLOCKING):
            if standing.workload.like_for_like:
                rows.append(
                    [
                        question.title,
                        self._figure(standing, standing.limit()),
                        self._best(standing),
                        self._figure(standing, BLOCKING),
                        self._times(standing),
                    ]
                )
        return table(rows, left=(0, 2)) if len(rows) > 1 else ""

    def _standings(self, own: str) -> Iterator[tuple[Standing, Question]]:
        """Each question, with the contenders of its workload, if `own` is one of them."""
        for workload in self.workloads:
            outcomes = self.outcomes.get(workload.name, {})
            for question in workload.questions:
                if own in outcomes:
                    yield (
                        Standing(
                            own, workload, outcomes, self.contenders,
                            question.column, question.more_is_better,
                        ),
                        question,
                    )  # fmt: skip

    def _figure(self, standing: Standing, name: str | None) -> str:
        outcome = standing.outcomes.get(name) if name else None
        if name is None or outcome is None:
            return "–"
        contender = self.contenders[name]
        text = with_unit(outcome, standing.column)
        if not outcome.audit.clean:
            return f"{text} ({outcome.audit})"
        unsafe = standing.workload.shared and not contender.shares and not contender.bare
        return f"{text}, no lock" if unsafe else text

    def _best(self, standing: Standing) -> str:
        peer = standing.best_peer()
        return f"{self.contenders[peer].title} {self._figure(standing, peer)}" if peer else "none"

    def _times(self, standing: Standing) -> str:
        mine, peer = standing.outcomes[standing.own], standing.best_peer()
        times = ratio(mine, standing.outcomes[peer], standing.column.figure) if peer else None
        return number(times, 2) if times else "–"

    # ---- what is to be reached ----------------------------------------------------------------

    def verdict(self, goal: Goal, standing: Standing) -> Verdict:
        """A goal with what was reached, and whether that is enough."""
        if not goal.of:
            return self._as_it_is(goal, standing)
        other = standing.best_peer() if goal.of == "best peer" else standing.limit()
        compare = self._difference if goal.plus else self._ratio
        return compare(goal, standing, standing.outcomes[other] if other else Outcome())

    def _as_it_is(self, goal: Goal, standing: Standing) -> Verdict:
        columns = standing.workload.columns
        column = next(column for column in columns if column.figure == goal.figure)
        text = f"{goal.relation} {goal.bound:g} {column.unit}".rstrip()
        mine = standing.outcomes[standing.own]
        if column != standing.column:  # what was reached has no column in the summary
            text = f"{column.title} {text}: {middle(mine, column)}"
        value = mine.median(goal.figure)
        return text, None if value is None else goal.is_met(value)

    def _ratio(self, goal: Goal, standing: Standing, other: Outcome) -> Verdict:
        text = f"{goal.relation} {goal.bound:g} × the {goal.of}"
        times = ratio(standing.outcomes[standing.own], other, goal.figure)
        return (text, None) if times is None else (f"{text}: {times:,.2f} ×", goal.is_met(times))

    def _difference(self, goal: Goal, standing: Standing, other: Outcome) -> Verdict:
        text = f"{goal.relation} the {goal.of} + {goal.bound:g} {standing.column.unit}"
        mine, theirs = (
            outcome.median(goal.figure) for outcome in (standing.outcomes[standing.own], other)
        )
        if mine is None or theirs is None:
            return text, None
        return text, goal.is_met(mine - theirs)

    # ---- one table for each workload ----------------------------------------------------------

    def details(self) -> str:
        """Everybody's figures in every workload."""
        parts = []
        for workload in self.workloads:
            shown = workload.questions or not workload.series
            if shown and self.outcomes.get(workload.name):
                parts.append(f"### {workload.title}\n\n{workload.text}\n\n{self._detail(workload)}")
        parts += [self._series(series) for series in SERIES if self.members(series)]
        return "\n".join(parts)

    def members(self, series: Series) -> list[Workload]:
        """The workloads of a series that have been measured, by their size."""
        members = [
            workload
            for workload in self.workloads
            if workload.series == series.name and self.outcomes.get(workload.name)
        ]
        return sorted(members, key=lambda workload: workload.at)

    def _series(self, series: Series) -> str:
        """Who is how good at which size."""
        members = self.members(series)
        rows = [[series.row, *(series.label(workload.at) for workload in members)]]
        for name, contender in self.contenders.items():
            outcomes = [self.outcomes[workload.name].get(name) for workload in members]
            figures = [middle(outcome, series.column) if outcome else "–" for outcome in outcomes]
            if set(figures) != {"–"}:
                rows.append([titled(contender), *figures])
        return f"### {series.title}\n\n{members[-1].text}\n\n{table(rows, left=(0,))}"

    def _detail(self, workload: Workload) -> str:
        columns = workload.columns
        titles = [", ".join(filter(None, (column.title, column.unit))) for column in columns]
        rows = [["", *titles, "rounds", "check"]]
        for name, outcome in self.outcomes[workload.name].items():
            contender = self.contenders[name]
            figures = [spread(outcome, column) for column in columns]
            check = self._remarks(workload, contender, outcome)
            rows.append([titled(contender), *figures, str(len(outcome.samples)), check])
        return table(rows, left=(0, len(rows[0]) - 1))

    def _remarks(self, workload: Workload, contender: type[Contender], outcome: Outcome) -> str:
        remarks = []
        if outcome.checked:
            remarks.append(str(outcome.audit) or "all there")
        if workload.shared and not contender.shares and not contender.bare:
            remarks.append("takes no lock")
        if contender.blocks and workload.like_for_like and not contender.bare:
            remarks.append("blocks the event loop")
        remarks += filter(None, (contender.remark, outcome.complaint, outcome.error))
        return "; ".join(remarks)


def titled(contender: type[Contender]) -> str:
    """The contender's title, by which ours are found at once."""
    return f"**{contender.title}**" if contender.ours else contender.title


def number(value: float, digits: int) -> str:
    """A figure with thousands set apart."""
    return f"{value:,.{digits}f}"


def middle(outcome: Outcome, column: Column) -> str:
    """The middle of the rounds."""
    value = outcome.median(column.figure)
    return "–" if value is None else number(value, column.digits)


def with_unit(outcome: Outcome, column: Column) -> str:
    """The middle of the rounds, with its unit."""
    value = middle(outcome, column)
    return "–" if value == "–" else f"{value} {column.unit}".replace(" per second", "/s")


def spread(outcome: Outcome, column: Column) -> str:
    """The middle of the rounds, the least and the most."""
    values = outcome.values(column.figure)
    if not values:
        return "–"
    least, most = (number(value, column.digits) for value in (min(values), max(values)))
    text = middle(outcome, column)
    return text if len(values) == 1 else f"{text} ({least}–{most})"


def mark_of(verdicts: list[bool | None]) -> str:
    """One word about several goals."""
    if not verdicts or None in verdicts:
        return ""
    return "met" if all(verdicts) else "not met"


def table(rows: list[list[str]], left: tuple[int, ...]) -> str:
    """A Markdown table whose columns are aligned in the source as well."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("| " + " | ".join(cells) + " |")
    dashes = ["-" * (w + 2) if at in left else "-" * (w + 1) + ":" for at, w in enumerate(widths)]
    lines.insert(1, "|" + "|".join(dashes) + "|")
    return "\n".join(lines) + "\n"

"""All findings in one verdict. Values in, a value out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .findings import Finding, Remedy, State

ESSENTIAL = ("lock", "turn's lock")
"""Probes without whose answer nothing can be said."""

_ADVICE = {
    Remedy.FOLDER: "Use another folder, on a disk of this machine.",
    Remedy.LOCK_DIR: (
        "Use --lock-dir with a folder on a disk of this machine, the same for every program on the "
        "session, or keep the session in another folder."
    ),
    Remedy.ROOM: "Free some space first.",
}
"""What helps against more comes first: in another folder there is another lock, too."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said at the end."""

    fit: bool
    """Whether processes of this machine may share sessions there."""
    off: bool
    """Whether something is off, with the folder or with the session."""
    text: str


def verdict(findings: Sequence[Finding]) -> Verdict:
    """Judge."""
    bad = [finding for finding in findings if finding.state is State.OFF]
    unfit = [finding for finding in bad if finding.remedy is not Remedy.HEAL]
    if unfit:
        return Verdict(
            False, True, f"Don't share sessions here: {_reasons(unfit)}. {_advice(unfit)}"
        )
    seen = {finding.probe for finding in findings if finding.state is not State.UNKNOWN}
    if not seen.issuperset(ESSENTIAL):
        return Verdict(
            False, True, "Can't tell if sessions can be shared here: the locks could not be tried."
        )
    said = ["Safe to share between processes on this machine."]
    said += [
        f"Mind: {finding.reason}."
        for finding in findings
        if finding.state is State.NOTE and finding.reason
    ]
    said += [f"But {finding.reason}: `cosession heal` settles it." for finding in bad]
    return Verdict(True, bool(bad), " ".join(said))


def _reasons(findings: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(finding.reason for finding in findings))


def _advice(findings: Sequence[Finding]) -> str:
    remedies = {finding.remedy for finding in findings}
    return next(text for remedy, text in _ADVICE.items() if remedy in remedies)

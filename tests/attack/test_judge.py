"""Verdicts by table: nothing holds without proof, and what got through is never missed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hearth.attack.judge import judge
from hearth.attack.model import Evidence, Expect, Outcome, Passage, Probe, Report, Verdict, Where

FLOW = ("tcp", "10.0.0.1", 80)
PROBE = Probe(id="p", group="g", target="t", tried="x", expect=Expect.DENIED, do="dial", control=("c",), flow=FLOW)
SHOT = replace(PROBE, expect=Expect.CONTAINED, do="shoot", flow=None, how={"address": "100.64.0.3"})
FROM_FRIEND = replace(PROBE, where=Where.FRIEND, because="another port answers")
NAME = replace(PROBE, expect=Expect.REFUSED_NAME, do="ask", flow=None, names="zone.example")
SCAN = replace(PROBE, expect=Expect.ONLY, do="scan", flow=None, ports=(53,), control=())
FLOOD = replace(PROBE, expect=Expect.BOUNDED, do="flows", how={"needed": 100}, control=())
CONTROL = Outcome(word="open")
TOLD = Evidence(refusals=frozenset({FLOW}))
WATCHED = Evidence(passage=Passage(left=frozenset({"p"}), flows_left=frozenset({FLOW})))


def verdict(
    probe: Probe, outcome: Outcome | str | None, evidence: Evidence, *, control: str | None = "open"
) -> Verdict:
    said = Outcome(word=outcome) if isinstance(outcome, str) else outcome
    outcomes = {} if said is None else {probe.id: said}
    if control is not None:
        outcomes["c"] = Outcome(word=control)
    (row,) = judge([probe], replace(evidence, outcomes=outcomes))
    return row.verdict


@pytest.mark.parametrize(
    ("probe", "outcome", "evidence", "wanted"),
    [
        (PROBE, "refused", TOLD, Verdict.HELD),
        (PROBE, "refused", WATCHED, Verdict.HELD),
        (PROBE, "silence", WATCHED, Verdict.HELD),
        (PROBE, "refused", Evidence(), Verdict.UNPROVEN),
        (PROBE, "silence", Evidence(), Verdict.UNPROVEN),
        (PROBE, "refused", Evidence(passage=Passage()), Verdict.UNPROVEN),
        (PROBE, "open", TOLD, Verdict.BROKEN),
        (PROBE, "silence", Evidence(passage=Passage(flows_passed=frozenset({FLOW}))), Verdict.BROKEN),
        (PROBE, "refused", Evidence(passage=Passage(passed=frozenset({"p"}))), Verdict.BROKEN),
        (PROBE, "refused", replace(TOLD, seen_by={"stranger": frozenset({"p"})}), Verdict.BROKEN),
        (PROBE, "error EMFILE", TOLD, Verdict.NOT_TRIED),
        (PROBE, None, TOLD, Verdict.NOT_TRIED),
        (PROBE, "could not", TOLD, Verdict.NOT_TRIED),
        (FROM_FRIEND, "refused", Evidence(), Verdict.HELD),
        (FROM_FRIEND, "silence", Evidence(), Verdict.UNPROVEN),
        (FROM_FRIEND, "open", Evidence(), Verdict.BROKEN),
        (SHOT, "sent", WATCHED, Verdict.HELD),
        (SHOT, "sent", Evidence(), Verdict.NOT_TRIED),
        (SHOT, "sent", Evidence(witnesses=frozenset({"100.64.0.3"})), Verdict.HELD),
        (SHOT, "sent", Evidence(passage=Passage()), Verdict.UNPROVEN),
        (SHOT, "sent", Evidence(seen_by={"friend": frozenset({"p"})}), Verdict.BROKEN),
        (SHOT, "sent", Evidence(passage=Passage(left=frozenset({"p"}), passed=frozenset({"p"}))), Verdict.BROKEN),
        (SHOT, "answered", WATCHED, Verdict.BROKEN),
        (SHOT, "refused", Evidence(), Verdict.HELD),
        (NAME, "refused", Evidence(names_refused=frozenset({"a.zone.example"})), Verdict.HELD),
        (NAME, "refused", Evidence(), Verdict.UNPROVEN),
        (NAME, "silence", Evidence(), Verdict.UNPROVEN),
        (NAME, "answered", Evidence(names_refused=frozenset({"a.zone.example"})), Verdict.BROKEN),
        (NAME, "failed", Evidence(), Verdict.BROKEN),
        (NAME, "mixed", Evidence(), Verdict.BROKEN),
        (replace(NAME, names=""), "unknown", Evidence(), Verdict.HELD),
        (SCAN, Outcome(word="scanned", ports=(53,)), Evidence(), Verdict.HELD),
        (SCAN, Outcome(word="scanned", ports=()), Evidence(), Verdict.UNPROVEN),
        (SCAN, Outcome(word="scanned", ports=(22, 53)), Evidence(), Verdict.BROKEN),
        (replace(SCAN, ports=()), Outcome(word="scanned"), Evidence(), Verdict.HELD),
        (FLOOD, Outcome(word="flooded", sent=200), Evidence(), Verdict.BROKEN),
        (FLOOD, Outcome(word="flooded", sent=200), Evidence(rules={"too many connections": 3}), Verdict.HELD),
        (FLOOD, Outcome(word="flooded", sent=50), Evidence(), Verdict.NOT_TRIED),
        (FLOOD, Outcome(word="slow", sent=200), Evidence(), Verdict.NOT_TRIED),
        (FLOOD, "unbounded", Evidence(), Verdict.BROKEN),
        (replace(FLOOD, expect=Expect.ALONE), "sent away", Evidence(), Verdict.HELD),
        (replace(FLOOD, expect=Expect.ALONE), "spoke", Evidence(), Verdict.BROKEN),
        (replace(FLOOD, expect=Expect.ALONE), "nobody there", Evidence(), Verdict.UNPROVEN),
        (replace(FLOOD, expect=Expect.SURVIVED), "sent", Evidence(), Verdict.HELD),
        (replace(FLOOD, expect=Expect.SURVIVED), "harmed", Evidence(), Verdict.BROKEN),
        (replace(FLOOD, expect=Expect.SURVIVED), "sent", Evidence(harm={"p": "no answer"}), Verdict.BROKEN),
        (replace(PROBE, expect=Expect.ALLOWED), "open", Evidence(), Verdict.ALLOWED),
        (replace(PROBE, expect=Expect.ALLOWED), "silence", Evidence(), Verdict.UNPROVEN),
        (replace(PROBE, expect=Expect.ALLOWED, control=()), "silence", Evidence(), Verdict.ALLOWED),
        (replace(PROBE, tried_at_all=False), "refused", TOLD, Verdict.NOT_TRIED),
    ],
)
def test_verdicts(probe: Probe, outcome: Outcome | str | None, evidence: Evidence, wanted: Verdict) -> None:
    assert verdict(probe, outcome, evidence) is wanted


@pytest.mark.parametrize("control", [None, "refused", "silence"])
@pytest.mark.parametrize(("probe", "outcome", "evidence"), [(PROBE, "refused", TOLD), (SHOT, "sent", WATCHED)])
def test_without_its_control_nothing_has_held(
    probe: Probe, outcome: str, evidence: Evidence, control: str | None
) -> None:
    assert verdict(probe, outcome, evidence, control=control) is Verdict.UNPROVEN


@pytest.mark.parametrize(
    "evidence",
    [
        replace(WATCHED, seen_by={"friend": frozenset({"c"})}),
        Evidence(passage=Passage(left=frozenset({"p"}), passed=frozenset({"c"}))),
    ],
)
def test_a_frame_that_reached_the_friend_is_a_control(evidence: Evidence) -> None:
    assert verdict(SHOT, "sent", evidence, control="sent") is Verdict.HELD


@pytest.mark.parametrize(("ports", "wanted"), [((53,), Verdict.HELD), ((), Verdict.UNPROVEN)])
def test_a_scan_that_found_what_is_open_is_a_control(ports: tuple[int, ...], wanted: Verdict) -> None:
    scan = replace(SCAN, ports=(), control=("c",))
    outcomes = {"p": Outcome(word="scanned"), "c": Outcome(word="scanned", ports=ports)}
    (row,) = judge([scan], Evidence(outcomes=outcomes))
    assert row.verdict is wanted


@pytest.mark.parametrize("word", ["open", "refused"])
def test_a_missing_control_does_not_hide_what_is_broken(word: str) -> None:
    evidence = replace(TOLD, passage=Passage(flows_passed=frozenset({FLOW})))
    assert verdict(PROBE, word, evidence, control=None) is Verdict.BROKEN


@pytest.mark.parametrize(
    ("word", "evidence", "has_held"), [("refused", TOLD, True), ("refused", Evidence(), False), ("open", TOLD, False)]
)
def test_a_report_has_held_when_nothing_is_broken_or_unproven(word: str, evidence: Evidence, has_held: bool) -> None:
    outcomes = {"p": Outcome(word=word), "c": CONTROL}
    rows = judge([PROBE, replace(PROBE, id="q", tried_at_all=False)], replace(evidence, outcomes=outcomes))
    report = Report(sandbox="dev", policy="deny", observed="yes", rows=rows)
    assert report.has_held is has_held
    assert sum(report.counts.values()) == 2
    assert report.counts["not tried"] == 1

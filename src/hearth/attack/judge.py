"""What came of a probe, judged: pure.

``held`` is said only where a success would have been seen: the same means succeeded elsewhere (the control), and
somebody else than the prober tells that this one did not get through: the daemon that refused it, or an observer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hearth.attack.model import Evidence, Expect, Outcome, Probe, Row, Verdict, Where

CLOSED = frozenset({"refused", "reset", "prohibited", "silence", "no route"})
UNNAMED = frozenset({"refused", "unknown"})
OTHERS = (Where.FRIEND.value, Where.STRANGER.value)
Judged = tuple[Verdict, str]


def judge(probes: Sequence[Probe], evidence: Evidence) -> tuple[Row, ...]:
    """Give the report's rows, in the probes' order."""
    return tuple(_row(probe, evidence) for probe in probes)


def _row(probe: Probe, evidence: Evidence) -> Row:
    outcome = evidence.outcomes.get(probe.id)
    verdict, proof = _verdict(probe, outcome, evidence)
    said = "-" if outcome is None else outcome.word
    if outcome is not None and outcome.detail and verdict is not Verdict.HELD:
        said = f"{said}: {outcome.detail}"
    return Row(
        id=probe.id,
        probe=probe.group,
        target=probe.target,
        tried=probe.tried,
        outcome=said,
        verdict=verdict,
        proof=proof,
    )


def _verdict(probe: Probe, outcome: Outcome | None, evidence: Evidence) -> Judged:
    if not probe.tried_at_all:
        return Verdict.NOT_TRIED, probe.because
    if (harm := evidence.harm.get(probe.id)) is not None:
        return Verdict.BROKEN, harm
    if outcome is None:
        return Verdict.NOT_TRIED, "the prober did not come to it"
    if outcome.word == "could not":
        return Verdict.NOT_TRIED, "the guest could not send it"
    found = JUDGES[probe.expect](probe, outcome, evidence)
    if found[0] is Verdict.HELD and (missing := _missing_control(probe, evidence)):
        return Verdict.UNPROVEN, f"the control {missing!r} did not succeed"
    return found


def _missing_control(probe: Probe, evidence: Evidence) -> str | None:
    for each in probe.control:
        outcome = evidence.outcomes.get(each)
        has_worked = outcome is not None and (outcome.word in ("open", "answered") or bool(outcome.ports))
        if not has_worked and not _reached_friend(each, evidence):
            return each
    return None


def _reached_friend(probe: str, evidence: Evidence) -> bool:
    if evidence.passage is not None and probe in evidence.passage.passed:
        return True
    return probe in evidence.seen_by.get(Where.FRIEND.value, frozenset())


def _denied(probe: Probe, outcome: Outcome, evidence: Evidence) -> Judged:
    if outcome.word == "open":
        return Verdict.BROKEN, "it answered"
    if through := _handed_on(probe, evidence):
        return Verdict.BROKEN, through
    if outcome.word not in CLOSED:
        return Verdict.NOT_TRIED, "the prober failed"
    if probe.flow in evidence.refusals:
        return Verdict.HELD, "the daemon tells that it refused it"
    if probe.where is not Where.TARGET:
        return _closed_to_us(probe, outcome)
    if (passage := evidence.passage) is None:
        return Verdict.UNPROVEN, "nobody else tells that it was refused"
    if probe.flow in passage.flows_left or probe.id in passage.left:
        return Verdict.HELD, "it left the guest and was handed on to nobody"
    return Verdict.UNPROVEN, "it was not seen to leave the guest"


def _closed_to_us(probe: Probe, outcome: Outcome) -> Judged:
    """From another sandbox to the target, where a listener waited."""
    if outcome.word == "silence":
        return Verdict.UNPROVEN, "silence may be a loss"
    return Verdict.HELD, f"{outcome.word}, while {probe.because}"


def _handed_on(probe: Probe, evidence: Evidence) -> str:
    """Say who got what nobody should have; "" for nobody."""
    for witness in OTHERS:
        if probe.id in evidence.seen_by.get(witness, frozenset()):
            return f"it reached the {witness}"
    passage = evidence.passage
    if passage is not None and (probe.id in passage.passed or probe.flow in passage.flows_passed):
        return "the host handed it on"
    return ""


def _allowed(probe: Probe, outcome: Outcome, evidence: Evidence) -> Judged:
    arrived = _reached_friend(probe.id, evidence) if probe.do == "shoot" else not probe.control
    if arrived or outcome.word in ("open", "answered", "empty"):
        return Verdict.ALLOWED, probe.because
    return Verdict.UNPROVEN, "it should have been reached"


def _contained(probe: Probe, outcome: Outcome, evidence: Evidence) -> Judged:
    if outcome.word == "answered":
        return Verdict.BROKEN, outcome.detail or "it was answered"
    if through := _handed_on(probe, evidence):
        return Verdict.BROKEN, through
    if outcome.word == "refused":
        return Verdict.HELD, "it was reset"
    if outcome.word != "sent":
        return Verdict.NOT_TRIED, "the prober failed"
    if (passage := evidence.passage) is None:
        if probe.how.get("address") in evidence.witnesses:
            return Verdict.HELD, "the honest frame arrived, this one did not"
        return Verdict.NOT_TRIED, "nobody would have seen it arrive: run as root on the daemon's host"
    if probe.id in passage.left:
        return Verdict.HELD, "it left the guest and was handed on to nobody"
    return Verdict.UNPROVEN, "it was not seen to leave the guest"


def _refused_name(probe: Probe, outcome: Outcome, evidence: Evidence) -> Judged:
    if outcome.word in ("answered", "empty", "failed", "mixed"):
        return Verdict.BROKEN, "the world was asked"
    if outcome.word not in UNNAMED:
        return Verdict.UNPROVEN, "no refusal came"
    if not probe.names:
        return Verdict.HELD, "a name of the own owner was answered"
    if any(name.endswith(probe.names) for name in evidence.names_refused):
        return Verdict.HELD, "the daemon tells that it refused the name"
    return Verdict.UNPROVEN, "nobody else tells that it was refused"


def _only(probe: Probe, outcome: Outcome, _evidence: Evidence) -> Judged:
    wrong = sorted(set(outcome.ports) - set(probe.ports))
    if wrong:
        return Verdict.BROKEN, f"open: {', '.join(map(str, wrong[:20]))}"
    if missing := set(probe.ports) - set(outcome.ports):
        return Verdict.UNPROVEN, f"port {min(missing)} was not found, which is open"
    found = ", ".join(map(str, sorted(probe.ports)))
    return Verdict.HELD, f"found what is open: {found}" if found else "found nothing, where it finds what is open"


def _alone(_probe: Probe, outcome: Outcome, _evidence: Evidence) -> Judged:
    if outcome.word == "sent away":
        return Verdict.HELD, "it was connected, and closed without a word; the host was served meanwhile"
    if outcome.word == "nobody there":
        return Verdict.UNPROVEN, "no agent was found"
    return Verdict.BROKEN, outcome.detail


def _bounded(probe: Probe, outcome: Outcome, evidence: Evidence) -> Judged:
    if outcome.word == "bounded":
        return Verdict.HELD, outcome.detail
    if outcome.word == "flooded" and evidence.rules.get("too many connections"):
        return Verdict.HELD, "the daemon tells of too many connections; the others did not notice"
    if outcome.word == "slow" or (outcome.word == "flooded" and outcome.sent < probe.how["needed"]):
        return Verdict.NOT_TRIED, f"the guest is too slow: {outcome.detail}"
    return Verdict.BROKEN, outcome.detail or "nothing bounded it"


def _survived(probe: Probe, outcome: Outcome, evidence: Evidence) -> Judged:
    if outcome.word in ("silent", "harmed"):
        return Verdict.BROKEN, outcome.detail
    if probe.id in evidence.seen_by.get(Where.STRANGER.value, frozenset()):
        return Verdict.BROKEN, "it reached the stranger"
    return Verdict.HELD, outcome.detail or "everybody is well afterwards"


JUDGES: dict[Expect, Callable[[Probe, Outcome, Evidence], Judged]] = {
    Expect.DENIED: _denied,
    Expect.ALLOWED: _allowed,
    Expect.CONTAINED: _contained,
    Expect.REFUSED_NAME: _refused_name,
    Expect.ONLY: _only,
    Expect.ALONE: _alone,
    Expect.BOUNDED: _bounded,
    Expect.SURVIVED: _survived,
}

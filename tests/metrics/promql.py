"""Reads expressions of Prometheus as it would, and tells which names, labels and kinds in one do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import promql_parser
from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
)

OF_COUNTERS = ("rate", "irate", "increase", "resets")
OF_GAUGES = ("delta", "idelta", "deriv", "predict_linear")
PROCESS = ("process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_virtual_memory_bytes")
"""Of every program that uses Prometheus's own library."""
TARGET = frozenset({"instance", "job"})
"""Labels that Prometheus gives whatever it scrapes."""
ROW = re.compile(r"^\| `([a-z0-9_]+)` \| (counter|gauge|histogram|summary)(?:: ([a-z, ]+))? \|", re.MULTILINE)
VARIABLES = (("$__rate_interval", "5m"), ("$__interval", "1m"), ("$__range", "1h"))


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What may be asked for by one name."""

    kind: str
    labels: frozenset[str]


def metrics_told_of(document: str) -> Mapping[str, Metric]:
    """Give what the table of a document tells of, with the parts of histograms, and what every target has."""
    found = {name: Metric(kind="gauge", labels=TARGET) for name in ("up", *PROCESS)}
    found["process_cpu_seconds_total"] = Metric(kind="counter", labels=TARGET)
    for name, kind, said in ROW.findall(document):
        labels = TARGET | {label.strip() for label in said.split(",") if label.strip()}
        found[name] = Metric(kind=kind, labels=labels)
        if kind in ("histogram", "summary"):
            found |= {f"{name}{part}": Metric(kind="counter", labels=labels) for part in ("_count", "_sum")}
        if kind == "histogram":
            found[f"{name}_bucket"] = Metric(kind="counter", labels=labels | {"le"})
    return found


def without_variables(text: str) -> str:
    """Put something in the place of a dashboard's variables."""
    for name, value in VARIABLES:
        text = text.replace(name, value)
    return text


def faults(text: str, known: Mapping[str, Metric]) -> list[str]:
    """Tell what is wrong with an expression; nothing when Prometheus would find what it asks for."""
    try:
        tree = promql_parser.parse(without_variables(text))
    except ValueError as error:
        return [f"{text}: {error}"]
    return [f"{text}: {fault}" for fault in _faults(tree, known)]


def _faults(node: Expr, known: Mapping[str, Metric]) -> Iterator[str]:
    if isinstance(node, VectorSelector):
        metric = known.get(node.name or "")
        if metric is None:
            yield f"there is no metric {node.name}"
        elif surplus := {matcher.name for matcher in node.matchers.matchers} - metric.labels:
            yield f"{node.name} has no label {', '.join(sorted(surplus))}"
    if isinstance(node, AggregateExpr) and node.modifier is not None and node.modifier.type == AggModifierType.By:
        for name in _names_below(node.expr):
            if surplus := set(node.modifier.labels) - known.get(name, Metric(kind="", labels=frozenset())).labels:
                yield f"{name} has no label {', '.join(sorted(surplus))} to group by"
    if isinstance(node, Call):
        yield from _faults_of_call(node, known)
    for child in _children(node):
        yield from _faults(child, known)


def _faults_of_call(node: Call, known: Mapping[str, Metric]) -> Iterator[str]:
    wanted = {**dict.fromkeys(OF_COUNTERS, "counter"), **dict.fromkeys(OF_GAUGES, "gauge")}.get(node.func.name)
    names = list(_names_below(node))
    for name in names:
        if wanted is not None and name in known and known[name].kind != wanted:
            yield f"{node.func.name} is for a {wanted}, {name} is a {known[name].kind}"
    if node.func.name == "histogram_quantile" and not all(name.endswith("_bucket") for name in names):
        yield f"histogram_quantile is for buckets, not {', '.join(names)}"


def _names_below(node: Expr) -> Iterator[str]:
    if isinstance(node, VectorSelector):
        yield node.name or ""
    for child in _children(node):
        yield from _names_below(child)


def _children(node: Expr) -> list[Expr]:
    match node:
        case BinaryExpr():
            return [node.lhs, node.rhs]
        case AggregateExpr() | UnaryExpr() | ParenExpr() | SubqueryExpr():
            return [node.expr]
        case MatrixSelector():
            return [node.vector_selector]
        case Call():
            return list(node.args)
        case _:
            return []

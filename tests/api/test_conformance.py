"""The API does what its OpenAPI document says, whatever is sent: a real daemon, real agents, generated requests.

What is generated is the same in every run. References lead to things that are there as often as not; commands are of a
few harmless ones, since the development engine runs them on this host.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from requests import Session
from schemathesis import Case, GenerationMode, openapi
from schemathesis.checks import CHECKS, load_all_checks
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.api.openapi import openapi_document
from hearth.api.operation import Operation
from hearth.api.operations import OPERATIONS

EXAMPLES = 6
"""Of each operation, as the document wants them, and as many that are otherwise."""
WAIT_S = 60.0
RATES = ("create", "use", "read", "address", "failures")
CHECKED = (
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
INITS: tuple[list[object], ...] = ([], ["true"], [["true"]], ["echo out; exit 3"], [["/no/such/program"]])
COMMANDS = (
    ["true"],
    ["sh", "-c", "echo out; echo err >&2; exit 3"],
    ["cat"],
    ["printf", "\\377"],
    ["/no/such/program"],
)
MISSING = ("missing", "sb-000000000000", "a b", "é", "x" * 200)
NAME = "there"


@dataclass(frozen=True, kw_only=True)
class World:
    """A daemon with one of each thing for references to lead to."""

    daemon: RunningDaemon
    address: str
    seen: dict[str, set[int]] = field(default_factory=dict)
    """The statuses that each operation answered."""

    @property
    def files(self) -> Path:
        """Where requests about files lead: the development engine's sandboxes have this host's."""
        return self.daemon.data.root / "files"

    def ready(self) -> Mapping[str, str]:
        """Make what is not there any more; give the references by the name that paths have for their kind."""
        if self.ask("GET", f"/api/v1/sandboxes/{NAME}").get("state") != "running":
            self.ask("POST", "/api/v1/sandboxes", {"name": NAME, "memory_mb": 128})
        self.ask("POST", f"/api/v1/sandboxes/{NAME}/exec", {"cmd": ["true"]})
        self.files.mkdir(exist_ok=True)
        (self.files / NAME).write_bytes(b"content\n")
        self.ask("POST", "/api/v1/users", {"name": NAME})
        self.ask("POST", "/api/v1/secrets", {"name": NAME, "value": "x"})
        self.ask("POST", "/api/v1/volumes", {"name": NAME, "size_mb": 16})
        self.ask("POST", "/api/v1/templates", {"name": NAME, "labels": {"made": "of"}, "init": ["true"]})
        (job,) = self.ask("GET", "/api/v1/jobs?limit=1")["items"]
        executed = self.ask("GET", f"/api/v1/sandboxes/{NAME}/execs?limit=1")["items"]
        jobs = dict.fromkeys(("status", "cancel", "jobs"), job["job_id"])
        return {
            **dict.fromkeys(("sandboxes", "users", "volumes", "secrets", "templates"), NAME),
            "execs": executed[0]["id"],
            **jobs,
        }

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and give the JSON of its answer, whatever that is."""
        connection = http.client.HTTPConnection(self.address, timeout=WAIT_S)
        headers = {"Authorization": f"Bearer {self.daemon.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    words = [word for rate in RATES for word in ("--rate", f"{rate}=none")]
    quotas = ("--quota", "sandboxes=24", "--quota", "volumes=8", "--quota", "volume_mb=512")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--listen", "127.0.0.1:0", *words, *quotas) as daemon:
            listening = next(entry for entry in daemon.log() if entry["event"] == "listening")
            yield World(daemon=daemon, address=listening["addresses"][0].removeprefix("http://"))


@pytest.fixture(scope="module")
def document() -> Any:
    load_all_checks()
    return openapi.from_dict(json.loads(msgspec.json.encode(openapi_document())))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_whatever_is_sent_is_answered_as_documented(
    world: World, document: Any, operation: Operation[Any, Any]
) -> None:
    described = document[operation.path][operation.method]
    references = world.ready()
    there = references.get(operation.path.split("/")[3] if operation.path.count("/") > 2 else "", "missing")
    checks: Any = [CHECKS.get_one(name) for name in CHECKED]

    with Session() as session:

        @settings(
            max_examples=2 * EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(
            case=st.one_of(*(described.as_strategy(generation_mode=mode) for mode in GenerationMode)),
            reference=st.sampled_from([there, there, there, *MISSING]),
            command=st.sampled_from(COMMANDS),
        )
        def send(case: Case[Any], reference: str, command: list[str]) -> None:
            harmless(case, operation, reference, command, world.files)
            if isinstance(case.body, dict):
                harmless_outfit(case.body, f"{world.files}/written")
            headers = {"Authorization": f"Bearer {world.daemon.token}"}
            answer = case.call(f"http://{world.address}", session=session, headers=headers, timeout=WAIT_S)
            world.seen.setdefault(operation.name, set()).add(answer.status_code)
            assert answer.status_code != 500, answer.text
            case.validate_response(answer, checks=checks)
            if answer.status_code >= 400 and operation.method != "HEAD":
                assert set(answer.json()) <= {
                    "error",
                    "code",
                    "details",
                    "resolution",
                    "request_id",
                    "status",
                    "checks",
                }
            assert answer.headers["x-request-id"]

        send()


def harmless(case: Case[Any], operation: Operation[Any, Any], reference: str, command: list[str], files: Path) -> None:
    """Let a request lead to something, run nothing but what is harmless, write no file, and come to an end."""
    if "ref" in case.path_parameters:
        case.path_parameters["ref"] = reference
    if "volume" in case.path_parameters:
        case.path_parameters["volume"] = reference
    if isinstance(case.body, dict) and operation.name == "exec":
        case.body.pop("output_file", None)
        case.body.pop("linger_s", None)
        if isinstance(case.body.get("cmd"), list):
            case.body["cmd"] = [*command]
        case.body["timeout_sec"] = 10
    if operation.path.endswith(
        "/files"
    ):  # they are this host's: nothing outside of the world's own directory is touched
        case.query["path"] = str(files / ("missing" if command == COMMANDS[0] else NAME))
        case.query.pop("recursive", None)
    if operation.name == "follow_events":
        case.query["follow"] = "false"
    if operation.name == "read_output":
        case.query.pop("follow", None)


def harmless_outfit(body: dict[str, Any], path: str) -> None:
    """Let what a sandbox is given run nothing but what is harmless, and write nowhere but to one place."""
    if isinstance(body.get("init"), list):
        body["init"] = INITS[len(body["init"]) % len(INITS)]
    if isinstance(body.get("files"), list):
        for file in body["files"]:
            if isinstance(file, dict) and isinstance(file.get("guest_path"), str):
                file["guest_path"] = path
    if isinstance(body.get("template_id"), str):
        body["template_id"] = NAME


def test_what_was_sent_was_both_taken_and_refused(world: World) -> None:
    if len(world.seen) < len(OPERATIONS):
        pytest.skip("only some of the operations were called")
    taken = {name for name, statuses in world.seen.items() if min(statuses) < 300}
    refused = {name for name, statuses in world.seen.items() if max(statuses) >= 400}
    assert {
        "create_sandbox",
        "get_sandbox",
        "exec",
        "list_sandboxes",
        "create_volume",
        "create_template",
        "change_template",
        "follow_job",
        "get_exec",
    } <= taken
    assert len(taken) > len(OPERATIONS) / 2
    assert len(refused) > len(OPERATIONS) / 2


def test_a_method_that_is_not_there_is_answered_so_everywhere(world: World) -> None:
    methods = {"GET", "POST", "PUT", "PATCH", "DELETE"}
    for path in {operation.path for operation in OPERATIONS}:
        known = {operation.method for operation in OPERATIONS if operation.path == path}
        for method in sorted(methods - known):
            connection = http.client.HTTPConnection(world.address, timeout=WAIT_S)
            try:
                connection.request(method, path.replace("{", "").replace("}", ""))
                answer = connection.getresponse()
                problem = json.loads(answer.read())
            finally:
                connection.close()
            assert (answer.status, problem["code"]) == (405, "method_not_allowed"), (method, path)
            assert set((answer.getheader("allow") or "").split(", ")) - {"HEAD"} == known - {"HEAD"}

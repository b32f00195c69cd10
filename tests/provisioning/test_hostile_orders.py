"""Orders that lead where they may not, by their URL, a redirect, a name or anything else: refused, nobody asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.image.golden.web import Web, web_server
from tests.provisioning.daemons import ask, credentials, ended, order, provisioning_daemon, what_is_left
from tests.provisioning.names import names
from tests.server.daemon import RunningDaemon

from hearth.bench.s3_server import S3Server
from hearth.sdk.client import Client

MIB = 1 << 20
STORAGE = S3Server(endpoint="http://127.0.0.1:1", access_key="access", secret_key="never-to-be-shown")
BUCKET = "images"
FINE = f"s3://{BUCKET}/golden.qcow2"


@pytest.fixture(scope="module")
def inside() -> Iterator[Web]:
    """What nobody may ask: a server at another address of this host, which answers with secrets."""
    with web_server("127.0.0.2") as serving:
        serving.objects["/"] = serving.objects["/x"] = b"secret" * 100_000
        yield serving


@pytest.fixture(scope="module")
def listed() -> Iterator[Web]:
    """What an operator listed."""
    with web_server() as serving:
        yield serving


@pytest.fixture(scope="module")
def daemon(listed: Web) -> Iterator[RunningDaemon]:
    words = ("--image-hosts", f"127.0.0.1:{listed.port}", "--image-networks", "127.0.0.1/32")
    with provisioning_daemon(*words, prefix=credentials(STORAGE, BUCKET)) as running:
        yield running


@pytest.fixture
def client(daemon: RunningDaemon, inside: Web) -> Iterator[Client]:
    with daemon.client() as opened:
        yield opened
    assert what_is_left(daemon.data, parts=True) == []
    assert inside.asked == []


METADATA_FORMS = (
    *("169.254.169.254", "169.254.169.254.", "2852039166", "0xa9fea9fe", "0xA9.0xFE.0xA9.0xFE", "0251.0376.0251.0376"),
    *("025177524776", "169.254.43518", "[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]"),
    *("[64:ff9b:1::a9fe:a9fe]", "[2002:a9fe:a9fe::]", "[fd00:ec2::254]", "[fe80::1%25eth0]", "[::]", "0", "[::1]"),
    *("localhost", "127.1", "metadata.google.internal", "%31%36%39.254.169.254", "\uff11\uff16\uff19.254.169.254"),
)


@pytest.mark.parametrize("host", METADATA_FORMS)
def test_no_form_of_an_inner_address_is_a_place_for_images(
    daemon: RunningDaemon, client: Client, listed: Web, host: str
) -> None:
    for url in (f"http://{host}/latest/meta-data/", f"https://{host}/x", f"http://{host}:{listed.port}/x"):
        status, answer, _ = ask(daemon, "POST", "/provision", order(url))
        assert status in (400, 403), answer
        assert "image" in answer["error"], answer
    assert client.events.jobs() == []


@pytest.mark.parametrize(
    "url",
    [
        *("", " ", "x", "//host/x", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "data:,x", "javascript:1"),
        *(
            "file:///etc/passwd",
            "file://127.0.0.1/etc/passwd",
            "file:etc/passwd",
            "/etc/passwd",
            "json:{}",
            "nbd://x/y",
        ),
        *("s3://", "s3://images", "s3://images/", "s3://images/../x", "s3://images/a/../../b", "s3://images/%2e%2e/b"),
        *("s3://other/x", "s3://-x/x", "s3://images/a?versionId=1", "s3://images/a#b", "s3://user:pw@images/x"),
        *("http://127.0.0.1:1@169.254.169.254/x", "http://169.254.169.254#@127.0.0.1/x", "http://127.0.0.1:1\\@x/"),
        *("http://127.0.0.1:99999/x", "http://127.0.0.1:-1/x", "http://[/x", "http:///x", "http://127.0.0.1\r\nx/y"),
        *("http://127.0.0.1:1/other-bucket/x", "http://127.0.0.1:1/images/../x", "s3://images/" + "a" * 2048),
        *("s3://images/a\0b", "s3://images/a\nb", "--help", "s3://images/a b", "http://a\tb/"),
    ],
)
def test_a_url_that_names_no_image_is_refused_by_the_name_of_its_field(
    daemon: RunningDaemon, client: Client, url: str
) -> None:
    status, answer, _ = ask(daemon, "POST", "/provision", order(url))
    assert status in (400, 403), answer
    assert "image" in answer["error"] + answer["details"], answer
    assert STORAGE.secret_key not in str(answer)
    assert client.events.jobs() == []


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "-x", "--help", "-rf", "/etc/passwd", "../x", "a/b", "a\\b", "a b", "a\0b", "a\n", "\u202ex"),
        *("x" * 101, "x" * 100_000, "snapshot1", "pvmove0", "a_tmeta", "a_tdata", "vm_rimage_0", "x.tmp", "~", "$(id)"),
        *("a;b", "a|b", "a'b", 'a"b', "ü", "a:b", "a@b", "%2e%2e", "*"),
    ],
)
def test_a_name_that_is_an_option_or_a_path_is_refused(daemon: RunningDaemon, client: Client, name: str) -> None:
    status, answer, _ = ask(daemon, "POST", "/provision", order(FINE, name))
    assert (status, "volume_name" in answer["error"] + answer["details"]) == (400, True), answer
    assert client.events.jobs() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("volume_size_gb", value) for value in ("0", "-1", "-1e308", "1e308", "1e400", "-1e-400", "1e-300", "NaN")),
        *(("volume_size_gb", value) for value in ("Infinity", '"10"', "null", "[]", "true", "9" * 400, "65537")),
        *(("image_type", value) for value in ('""', '"vmdk"', '"QCOW2"', '"raw "', "null", "1", '"raw,qcow2"')),
        *(("mode", value) for value in ('""', '"link"', "null", "{}")),
        *(("pool", value) for value in ('""', '"../x"', '"-x"', '"nowhere"', "1", '"' + "x" * 9999 + '"')),
        *(("checksum", value) for value in ('""', '"x"', '"' + "0" * 63 + '"', '"md5:' + "0" * 32 + '"', "0", "[]")),
        *(("correlation_id", value) for value in ('""', "1", '"' + "x" * 9999 + '"')),
        *(("correlation_id", f'"{value}"') for value in (r"a\u0000", r"\u001b[2J", r"a\nb", r"\u202ex", r"\u009bx")),
        *(("owner", value) for value in ('"somebody"',)),
    ],
)
def test_what_no_field_may_hold_is_refused_by_its_name(
    daemon: RunningDaemon, client: Client, field: str, value: str
) -> None:
    words = {"image_url": f'"{FINE}"', "volume_name": '"vm"', "volume_size_gb": "1", "image_type": '"qcow2"'}
    body = ",".join(f'"{name}":{text}' for name, text in {**words, field: value}.items())
    status, answer, _ = ask(daemon, "POST", "/provision", f"{{{body}}}".encode())
    assert status == 400, answer
    assert field in answer["error"] + answer["details"] or "JSON" in answer["error"], answer
    assert client.events.jobs() == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff", b"{}" * 2, b"[" * 100_000])
def test_what_is_no_order_is_refused(daemon: RunningDaemon, client: Client, body: bytes) -> None:
    assert ask(daemon, "POST", "/provision", body)[0] == 400
    assert client.events.jobs() == []


def failed(daemon: RunningDaemon, client: Client, url: str) -> str:
    """Order a volume, see that it fails because of its URL, and give the words."""
    status, answer, _ = ask(daemon, "POST", "/provision", order(url, image_type="raw"))
    assert status == 202, answer
    job = ended(client, answer["job_id"])
    assert job.error is not None
    assert (job.status, job.error.field) == ("failed", "image_url")
    return f"{job.error.error}: {job.error.details}"


def test_no_redirect_leads_to_where_a_url_may_not(
    daemon: RunningDaemon, client: Client, listed: Web, inside: Web
) -> None:
    for number, target in enumerate(
        (
            "http://169.254.169.254/latest/meta-data/",
            inside.url("/x").replace("127.0.0.1", "127.0.0.2"),
            f"//127.0.0.2:{inside.port}/x",
            f"http://2130706434:{inside.port}/x",
            f"http://[::ffff:127.0.0.2]:{inside.port}/x",
            f"http://127.0.0.1:{listed.port}@127.0.0.2:{inside.port}/x",
            "file:///etc/passwd",
            "s3://images/x",
        )
    ):
        listed.redirects[f"/{number}"] = target
        said = failed(daemon, client, listed.url(f"/{number}"))
        assert any(words in said for words in ("not fetched from there", "cannot be fetched")), said


def test_neither_does_one_for_the_checksum(daemon: RunningDaemon, client: Client, listed: Web, inside: Web) -> None:
    listed.objects["/a"] = b"a" * MIB
    listed.redirects["/a.sha256"] = f"http://127.0.0.2:{inside.port}/x"
    assert "not fetched from there" in failed(daemon, client, listed.url("/a"))


def test_an_object_storage_leads_nobody_to_another_host(inside: Web, tmp_path: Path) -> None:
    """Neither at the beginning, nor for the checksum, nor in the middle of the download."""
    with web_server() as storage:
        for name in ("first", "checksum", "middle"):
            storage.objects[f"/images/{name}"] = name.encode() * 400_000
        there = f"http://127.0.0.2:{inside.port}/x"
        storage.redirects["/images/first"] = there
        storage.redirects["/images/checksum.sha256"] = there
        endpoint = f"http://127.0.0.1:{storage.port}"
        with provisioning_daemon(prefix=credentials(STORAGE, BUCKET, endpoint)) as daemon, daemon.client() as client:
            for name in ("first", "checksum"):
                assert "redirected to another host" in failed(daemon, client, f"s3://{BUCKET}/{name}")
            storage.flows.clear()
            _, answer, _ = ask(daemon, "POST", "/provision", order(f"s3://{BUCKET}/middle", image_type="raw"))
            storage.wait_until_asked("/images/middle", 2)
            storage.redirects["/images/middle"] = there
            storage.flows.set()
            job = ended(client, answer["job_id"])
            assert job.error is not None
            assert "redirected to another host" in job.error.details
            assert what_is_left(daemon.data) == []
    assert inside.asked == []


HOSTS = """127.0.0.1 localhost
127.0.0.1 good.example.org
127.0.0.2 inside.example.org
169.254.169.254 metadata.example.org
127.0.0.1 mixed.example.org
127.0.0.2 mixed.example.org
fd00:ec2::254 metadata6.example.org
::ffff:127.0.0.2 mapped.example.org
64:ff9b:1::a9fe:a9fe translated.example.org
"""


@pytest.mark.root
def test_no_name_leads_to_where_an_address_may_not(inside: Web, tmp_path: Path) -> None:
    """An operator listed the names, whoever has the domain says where they lead, also between two questions."""
    answers = {"rebind.example.org": ["127.0.0.1", "127.0.0.2"], "first.example.org": ["169.254.169.254"]}
    with web_server() as good, names(tmp_path, HOSTS, answers) as (serving, prefix):
        good.objects["/a"], good.keeps_connections = b"a" * MIB, False
        hosts = f"good.example.org:{good.port},*.example.org:{inside.port},rebind.example.org:{good.port}"
        words = ("--image-hosts", hosts, "--image-networks", "127.0.0.1/32", "--s3-retry-backoff-ms", "1")
        with provisioning_daemon(*words, prefix=prefix) as daemon, daemon.client() as client:
            for name in ("inside", "metadata", "mixed", "metadata6", "mapped", "translated", "first"):
                said = failed(daemon, client, f"http://{name}.example.org:{inside.port}/x")
                assert "not an address of the public Internet" in said
            said = failed(daemon, client, f"http://rebind.example.org:{good.port}/a")
            assert "127.0.0.2 is not an address of the public Internet" in said
            assert serving.asked == ["169.254.169.254", "127.0.0.1", "127.0.0.2"]
            assert good.asked == ["/a"]
            assert what_is_left(daemon.data, parts=True) == []
    assert inside.asked == []

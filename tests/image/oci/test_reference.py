"""What people call images, and what is meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.errors import InvalidInput
from hearth.image.oci.reference import Reference, parse_reference

DIGEST = f"sha256:{'ab' * 32}"
MEANT = {
    "debian": "docker.io/library/debian:latest",
    "debian:12-slim": "docker.io/library/debian:12-slim",
    "owner/app": "docker.io/owner/app:latest",
    "docker.io/debian": "docker.io/library/debian:latest",
    "index.docker.io/owner/app:1": "docker.io/owner/app:1",
    "registry-1.docker.io/library/debian": "docker.io/library/debian:latest",
    "ghcr.io/owner/deep/app:v1": "ghcr.io/owner/deep/app:v1",
    "localhost/app": "localhost/app:latest",
    "localhost:5000/app": "localhost:5000/app:latest",
    "127.0.0.1:5000/a/b": "127.0.0.1:5000/a/b:latest",
    "[::1]:5000/app": "[::1]:5000/app:latest",
    "Registry.Example.org/app": "registry.example.org/app:latest",
    f"debian@{DIGEST}": f"docker.io/library/debian@{DIGEST}",
    f"example.org/app:1@{DIGEST}": f"example.org/app:1@{DIGEST}",
    "a__b/c-d--e.f": "docker.io/a__b/c-d--e.f:latest",
}
REFUSED = [
    *("", " ", "Debian", "debian:", "debian@", "debian@sha256:ab", f"debian@md5:{'a' * 32}", "debian:-x", "a//b", "/a"),
    *("a/", "-a", "a..b", "example.org:0/a", "example.org:99999/a", "http://example.org/a", "user@example.org/a"),
    *("example.org/../a", "a b", "a\n", "example.org/a:" + "t" * 129, "a" * 256, "x" * 600, "ex_ample.org/a", "é/a"),
    *("example.org/a?b", "example.org/a#b", "[::1/a"),
]


@pytest.mark.parametrize(("text", "meant"), MEANT.items())
def test_it_is_completed(text: str, meant: str) -> None:
    found = parse_reference(text)
    assert str(found) == meant
    assert parse_reference(meant) == found


@pytest.mark.parametrize("text", REFUSED)
def test_it_is_refused_and_the_field_named(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_reference(text)
    assert caught.value.field == "reference"


COMPONENT = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4})?", fullmatch=True)


@given(
    st.sampled_from(["example.org", "127.0.0.1:5000", "docker.io", "localhost"]),
    st.lists(COMPONENT, min_size=2, max_size=4),
    st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)),
    st.sampled_from([None, DIGEST]),
)
def test_what_is_written_is_read(host: str, parts: list[str], tag: str | None, digest: str | None) -> None:
    meant = Reference(host=host, path="/".join(parts), tag=tag or (None if digest else "latest"), digest=digest)
    assert parse_reference(str(meant)) == meant


@given(st.text(max_size=80))
def test_whatever_comes_is_read_or_refused(text: str) -> None:
    try:
        found = parse_reference(text)
    except InvalidInput:
        return
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [("debian:12", "debian-12"), ("a/b_c:V1.2", "b-c-v1-2"), ("debian", "debian")],
)
def test_it_gives_a_name(text: str, name: str) -> None:
    assert parse_reference(text).short_name == name

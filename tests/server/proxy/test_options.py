"""What the command line says of the public: what it comes to, and what makes no sense."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import ip_network
from pathlib import Path

import pytest

from hearth.errors import InvalidInput
from hearth.server.proxy.options import PublicOptions, read_options
from hearth.settings.options import read_words

LISTEN = ("--public-listen", "127.0.0.1:0")
ZONE = (*LISTEN, "--public-zone", "Boxes.Example.")
ACME = (*ZONE, "--public-acme-directory", "https://ca.example/dir")
HTTP = ("--public-http", "[::1]:80")


def read(*words: str) -> PublicOptions:
    return read_options(read_words(words, {}).arguments)


def test_nothing_said_is_nobody_served_and_nobody_trusted() -> None:
    options = read()
    assert (options.listen, options.acme, options.trust.networks, options.scheme) == (None, None, (), "http")


def test_certificates_are_ordered_with_a_way_to_prove_the_names(tmp_path: Path) -> None:
    options = read(*ACME, *HTTP, "--public-acme-email", "ops@boxes.example", "--public-acme-ca", "ca.pem")
    assert (options.scheme, options.zone, options.http) == ("https", "boxes.example", ("::1", 80))
    assert options.acme is not None
    assert options.acme.ca_file is not None
    assert options.acme.ca_file.is_absolute()
    hook = tmp_path / "hook"
    hook.write_text("")
    hook.chmod(0o755)
    with_hook = read(*ACME, "--public-acme-dns-hook", str(hook)).acme
    assert with_hook is not None
    assert with_hook.hook == hook


def test_proxies_are_trusted_by_name_and_in_one_header() -> None:
    words = ("--public-trusted-proxy", "192.0.2.0/24", "--public-trusted-proxy", "2001:db8::1")
    trust = read(*LISTEN, *words, "--public-proxy-header", "forwarded").trust
    assert trust.networks == (ip_network("192.0.2.0/24"), ip_network("2001:db8::1/128"))
    assert trust.header == "forwarded"


@pytest.mark.parametrize(
    ("words", "seen_as"),
    [
        ((*ZONE, "--public-url", "https://boxes.example"), ("https", "boxes.example", 443)),
        ((*ZONE, "--public-url", "http://BOXES.example:8080/"), ("http", "boxes.example", 8080)),
        ((*LISTEN, "--public-url", "https://example.org"), ("https", "example.org", 443)),
        (ZONE, None),
    ],
)
def test_behind_a_proxy_urls_are_its_own(words: tuple[str, ...], seen_as: tuple[str, str, int] | None) -> None:
    assert read(*words).seen_as == seen_as


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--public-zone", "x.example"), "--public-zone needs --public-listen"),
        ((*LISTEN, "--public-cert", "c"), "--public-cert needs --public-key"),
        ((*LISTEN, "--public-key", "k"), "--public-key needs --public-cert"),
        (("--public-url", "https://x.example"), "--public-url needs --public-listen"),
        ((*ZONE, "--public-url", "https://elsewhere.example"), "invalid --public-url"),
        ((*ZONE, "--public-url", "https://boxes.example/path"), "invalid --public-url"),
        ((*ZONE, "--public-url", "https://boxes.example:65536"), "invalid --public-url"),
        ((*LISTEN, "--public-url", "javascript:alert(1)"), "invalid --public-url"),
        ((*LISTEN, *HTTP), "--public-http needs --public-zone"),
        ((*ZONE, *HTTP), "--public-http needs --public-cert or --public-acme-directory"),
        ((*LISTEN, "--public-acme-directory", "https://ca.example"), "needs --public-zone"),
        (ACME, "--public-acme-directory needs --public-http or --public-acme-dns-hook"),
        ((*ZONE, "--public-acme-directory", "http://ca.example", *HTTP), "is no https URL"),
        ((*ACME, *HTTP, "--public-cert", "c", "--public-key", "k"), "exclude each other"),
        ((*ZONE, "--public-acme-email", "a@b"), "--public-acme-email needs --public-acme-directory"),
        ((*ACME, *HTTP, "--public-acme-email", "a@b, c@d"), "invalid --public-acme-email"),
        ((*ZONE, "--public-acme-ca", "ca"), "--public-acme-ca needs --public-acme-directory"),
        ((*ZONE, "--public-acme-dns-hook", "h"), "--public-acme-dns-hook needs --public-acme-directory"),
        ((*ACME, "--public-acme-dns-hook", "/etc/passwd"), "no program that the daemon may run"),
        ((*LISTEN, "--public-trusted-proxy", "0.0.0.0/0"), "is everybody"),
        (("--public-listen", "nowhere"), "not an address and a port"),
    ],
)
def test_what_makes_no_sense_is_told_with_what_to_do(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(*words)
    assert told in str(refused.value)
    assert refused.value.resolution


def test_the_daemon_loads_nothing_of_what_talks_to_authorities() -> None:
    code = "import sys, hearth.server.serve; print(sorted({'acme', 'josepy', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=240)
    assert done.stdout == b"[]\n"

"""One daemon for all tests of this folder, and a sandbox whose ports are ours: its agent shares our loopback."""

from tests.daemon_fixtures import client, daemon, sandbox, shared

__all__ = ["client", "daemon", "sandbox", "shared"]

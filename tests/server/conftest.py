"""One daemon for all tests of this folder, and a sandbox for those that only run commands."""

from tests.daemon_fixtures import client, daemon, sandbox, shared

__all__ = ["client", "daemon", "sandbox", "shared"]

"""The SDK: ``from hearth.sdk import Sandbox`` (or AsyncSandbox); modules are loaded when their names are first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hearth.sdk.async_client import AsyncClient, AsyncSandbox
    from hearth.sdk.async_running import AsyncRunning
    from hearth.sdk.client import Client, Sandbox
    from hearth.sdk.died import SandboxDied
    from hearth.sdk.results import CommandFailed, Output, Result
    from hearth.sdk.running import Running

__all__ = [
    "AsyncClient",
    "AsyncRunning",
    "AsyncSandbox",
    "Client",
    "CommandFailed",
    "Output",
    "Result",
    "Running",
    "Sandbox",
    "SandboxDied",
]

_HOMES = {
    "AsyncClient": "async_client",
    "AsyncRunning": "async_running",
    "AsyncSandbox": "async_client",
    "Client": "client",
    "CommandFailed": "results",
    "Output": "results",
    "Result": "results",
    "Running": "running",
    "Sandbox": "client",
    "SandboxDied": "died",
}


def __getattr__(name: str) -> Any:
    # asyncio takes 45 ms to import; whoever wants the blocking client shall not wait for it.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

"""The recipes: package lists, kernel modules and sizes as data in ``recipes/*.toml``, read into typed values."""

from __future__ import annotations

from importlib import resources

import msgspec


class KernelModules(msgspec.Struct, frozen=True, kw_only=True):
    """Names in the order they should load."""

    names: list[str]


class KernelRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``metapackages`` is distribution → Debian architecture → package."""

    builder: int
    metapackages: dict[str, dict[str, str]]
    modules: KernelModules


class AgentRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``libraries`` are regular expressions for whole package names."""

    builder: int
    metapackage: str
    libraries: list[str]
    opened_late: list[str]
    packages: list[str]
    extra_modules: list[str]
    entry: str
    options: str


class RootfsRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``exclude`` and ``include`` are dpkg path patterns, ``remove`` globs relative to the root."""

    builder: int
    variant: str
    packages: list[str]
    user: str
    uid: int
    size_mib: int
    exclude: list[str]
    include: list[str]
    remove: list[str]


def kernel_recipe() -> KernelRecipe:
    """Read ``recipes/kernel.toml``."""
    return msgspec.toml.decode(read("kernel.toml"), type=KernelRecipe)


def agent_recipe() -> AgentRecipe:
    """Read ``recipes/agent.toml``."""
    return msgspec.toml.decode(read("agent.toml"), type=AgentRecipe)


def rootfs_recipe() -> RootfsRecipe:
    """Read ``recipes/debian.toml``."""
    return msgspec.toml.decode(read("debian.toml"), type=RootfsRecipe)


def read(name: str) -> bytes:
    """Give a recipe's bytes, wherever hearth is installed."""
    return (resources.files("hearth.image") / "recipes" / name).read_bytes()

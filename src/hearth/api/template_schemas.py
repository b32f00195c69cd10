"""Bodies of templates: descriptions of sandboxes to come. The conventions are those of ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from hearth.api.net_schemas import NetPolicy
from hearth.api.outfit_schemas import InitCommand
from hearth.api.schemas import Name, SandboxSettings
from hearth.api.secret_schemas import SecretUse
from hearth.api.volume_schemas import AttachVolume, NewVolume

MAX_TEMPLATES_LISTED = 100


class CreateTemplate(SandboxSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A name and what sandboxes made of the template are like, as in a request for one.

    A volume in ``new_volumes`` is made anew for each sandbox and named after it: ``cache`` becomes ``dev-cache`` in the
    sandbox ``dev``. Image, volumes and secrets must be there now, and again when a sandbox is made.
    """

    name: Name


class ChangeTemplate(SandboxSettings, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is to be otherwise; a field that is given takes the place of the old one, what is left out stays.

    null, or an empty list or object, takes one away. Sandboxes that were made of the template stay as they are.
    """

    name: Name | None = None


class TemplateFile(Struct, frozen=True, kw_only=True):
    """A file of a template; what it holds is not given back."""

    guest_path: str
    size_bytes: int
    mode: str | None = None


class TemplateView(Struct, frozen=True, kw_only=True):
    """A template as its owner sees it; null stands for what it says nothing of.

    Of ``env`` the names are told, of ``files`` their places and sizes: the values are never given back.
    """

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    image: str | None = None
    cpus: int | None = None
    memory_mb: int | None = None
    disk_size_mb: int | None = None
    env_names: list[str] = []
    labels: dict[str, str] = {}
    keep_hot: bool | None = None
    ttl_s: int | None = None
    idle_pause_s: float | None = None
    idle_stop_s: float | None = None
    net_policy: NetPolicy | None = None
    volumes: list[AttachVolume] = []
    new_volumes: list[NewVolume] = []
    secrets: list[SecretUse] = []
    files: list[TemplateFile] = []
    init: list[InitCommand] = []
    init_timeout_s: float | None = None


class TemplateList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[TemplateView]
    next_cursor: str | None = None


class ListTemplates(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of the list; pages are short, for a template may hold much."""

    limit: Annotated[int, Meta(ge=1, le=MAX_TEMPLATES_LISTED)] = MAX_TEMPLATES_LISTED
    cursor: Annotated[str, Meta(max_length=512)] | None = None

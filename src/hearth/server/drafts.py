"""What somebody says of a sandbox to come, in the words of the API, and what it means inside; templates fill gaps."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from hearth.api.outfit_schemas import NewFile
from hearth.api.refusals import refusal
from hearth.api.schemas import CreateSandbox, SandboxSettings
from hearth.bounds import DEFAULT_INIT_TIMEOUT_S
from hearth.control.creation import Extras
from hearth.control.volumes import NewVolume, WantedVolumes
from hearth.errors import InvalidInput
from hearth.model import SandboxSpec
from hearth.outfit import GuestFile, Outfit
from hearth.server.policies import policy_fields
from hearth.server.resource import Call
from hearth.server.routes.secrets import secret_use
from hearth.volume.mounting import VolumeRequest

T = TypeVar("T")

JOINED = ("env", "labels")
"""Of these a request adds to what its template says, and replaces what has the same name."""
NOT_OF_TEMPLATES = ("name", "from", "template_id")


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A sandbox that is asked for, but for its name."""

    body: CreateSandbox
    template_id: str | None = None
    new_volumes_are_patterns: bool = False
    """The names of new volumes come from a template: each sandbox has its own."""

    def spec(self, name: str) -> SandboxSpec:
        """Give the specification; of one that starts from another, image and shape are that one's.

        Raises:
            InvalidInput: it asks for another image or shape than what it starts from has.
        """
        body = self.body
        said = {"image": body.image, "cpus": body.cpus, "memory_mb": body.memory_mb}
        field = next((each for each, value in said.items() if value is not None), None)
        if body.from_ is not None and field is not None:
            raise InvalidInput(
                f"invalid {field}",
                details=f"{field} is given with from, which brings its own",
                resolution=f"leave out {field}, or from",
                field=field,
            )
        usual = SandboxSpec(name=name)
        return SandboxSpec(
            name=name,
            image=usual.image if body.image is None else body.image,
            cpus=usual.cpus if body.cpus is None else body.cpus,
            memory_mib=usual.memory_mib if body.memory_mb is None else body.memory_mb,
            env=dict(body.env),
            labels=dict(body.labels),
            keep_hot=body.keep_hot,
            ttl_s=body.ttl_s,
            idle_pause_s=body.idle_pause_s,
            idle_stop_s=body.idle_stop_s,
            net_policy=policy_fields(body.net_policy),
            secrets=tuple(map(secret_use, body.secrets)),
            disk_mib=body.disk_size_mb,
            template_id=self.template_id,
        )

    def extras(self, name: str) -> Extras:
        """Give the volumes, files and commands of a sandbox of that name.

        Raises:
            InvalidInput: a content is no base64.
        """
        body = self.body
        prefix = f"{name}-" if self.new_volumes_are_patterns else ""
        volumes = WantedVolumes(
            existing=[
                VolumeRequest(name=each.name, mount=each.mount, read_only=each.read_only) for each in body.volumes
            ],
            new=[
                NewVolume(name=f"{prefix}{each.name}", size_mib=each.size_mb, mount=each.mount)
                for each in body.new_volumes
            ],
        )
        outfit = Outfit(
            files=[_file(each, number) for number, each in enumerate(body.files)],
            init=[each if isinstance(each, str) else tuple(each) for each in body.init],
            init_timeout_s=DEFAULT_INIT_TIMEOUT_S if body.init_timeout_s is None else body.init_timeout_s,
        )
        return Extras(volumes=volumes, outfit=outfit)


async def said_in(call: Call[Any]) -> dict[str, Any]:
    """Give the members of a body that were sent, whether or not they are as they would be without."""
    said: dict[str, Any] = msgspec.json.decode(await call.request.body())
    return said


def merged(template: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Fill what a request leaves out with what a template says; both as plain JSON values."""
    joined = {name: {**template.get(name, {}), **said[name]} for name in JOINED if said.get(name) is not None}
    return {**template, **said, **joined}


def draft_of(template_id: str, template: Mapping[str, Any], said: Mapping[str, Any]) -> Draft:
    """Give what a request with a template asks for.

    Raises:
        InvalidInput: together they are not what a sandbox can be; ``field`` names the member.
    """
    if said.get("from") is not None:
        raise InvalidInput(
            "invalid template_id",
            details="template_id is given with from, which brings its own",
            resolution="leave out one of the two",
            field="template_id",
        )
    body = _converted(merged(template, said), CreateSandbox)
    return Draft(body=body, template_id=template_id, new_volumes_are_patterns="new_volumes" not in said)


def settings_in(said: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a template is to keep of what was said: everything but what is empty, null, or not a template's."""
    return {name: value for name, value in said.items() if name not in NOT_OF_TEMPLATES and value not in (None, {}, [])}


def read_settings(spec: Mapping[str, Any]) -> SandboxSettings:
    """Read what a template keeps. Raises InvalidInput where that is nothing a sandbox can be (any more)."""
    return _converted(spec, SandboxSettings)


def _converted(values: Mapping[str, Any], schema: type[T]) -> T:
    try:
        return msgspec.convert(values, schema)
    except msgspec.ValidationError as error:
        raise refusal(str(error), values, whole="body") from error


def _file(file: NewFile, number: int) -> GuestFile:
    return GuestFile(guest_path=file.guest_path, content=_content(file, number), mode=file.mode)


def _content(file: NewFile, number: int) -> bytes:
    field = f"files[{number}].content"
    try:
        if file.encoding == "base64":
            return base64.b64decode(file.content, validate=True)
        return file.content.encode()
    except (binascii.Error, ValueError):
        # Without its cause, which holds the content.
        raise InvalidInput(
            f"invalid {field}",
            details=f"{field} is not {file.encoding}",
            resolution="send base64 with padding and encoding base64, or text",
            field=field,
        ) from None

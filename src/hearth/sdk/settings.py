"""What may be said of a sandbox to come, by ``create`` and by templates: options become a checked body."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, TypeVar

from hearth.api.operation import Operation
from hearth.bounds import DEFAULT_INIT_TIMEOUT_S
from hearth.sdk.call import LONG_S, Call, call_of, checked
from hearth.sdk.secret_calls import SecretOptions
from hearth.sdk.volume_calls import NewVolumeOptions, VolumeOptions

Input = TypeVar("Input")
Output = TypeVar("Output")
FileOptions = str | bytes | tuple[str | bytes, str]
"""A file's content, or that and its mode in octal digits."""
_NAMES = {"from_": "from", "template": "template_id", "disk_mb": "disk_size_mb"}
_EMPTY: tuple[object, ...] = (None, False, {}, [])


class SettingsOptions(TypedDict, total=False):
    """What sandboxes are like: see SandboxSettings of the API. Sizes in MiB, times in seconds.

    ``files``: path in the sandbox to content, or to content and mode such as ``"0755"``. ``init``: commands that run
    once, as root, before the sandbox is there: lines for its shell, or lists of a program and its arguments.
    """

    image: str | None
    cpus: int | None
    memory_mb: int | None
    disk_mb: int | None
    env: Mapping[str, str]
    labels: Mapping[str, str]
    keep_hot: bool
    ttl_s: int | None
    idle_pause_s: float | None
    idle_stop_s: float | None
    net_policy: Mapping[str, object] | None
    volumes: Sequence[VolumeOptions]
    new_volumes: Sequence[NewVolumeOptions]
    secrets: Sequence[SecretOptions]
    files: Mapping[str, FileOptions]
    init: Sequence[str | Sequence[str]]
    init_timeout_s: float | None


def described(
    operation: Operation[Input, Output], schema: type[Input], options: Mapping[str, Any], *, ref: str | None = None
) -> Call[Output]:
    """Make a call whose body describes sandboxes; what was said stands in it even where it is empty.

    Raises:
        InvalidInput: names the option.
    """
    values = {_NAMES.get(name, name): value for name, value in options.items()}
    if isinstance(values.get("files"), Mapping):
        values["files"] = [_file(path, given) for path, given in values["files"].items()]
    empty = {name: value for name, value in values.items() if value in _EMPTY}
    body = checked(schema, values)
    timeout_s = LONG_S + float(values.get("init_timeout_s") or DEFAULT_INIT_TIMEOUT_S)
    return call_of(operation, body, ref=ref, what="template", timeout_s=timeout_s, said=empty)


def _file(path: str, given: FileOptions) -> dict[str, object]:
    content, mode = given if isinstance(given, tuple) else (given, None)
    file: dict[str, object] = {"guest_path": path, "content": content}
    if isinstance(content, bytes):
        file |= {"content": base64.b64encode(content).decode(), "encoding": "base64"}
    return file if mode is None else {**file, "mode": mode}

"""Where volumes may be mounted, and what the guest is told."""

from __future__ import annotations

import pytest

from hearth.errors import InvalidInput
from hearth.volume.base import AttachMode
from hearth.volume.mounting import VolumeRequest, check_mount_path, check_requests, plan_mounts
from hearth.wire.messages import VolumeMount


@pytest.mark.parametrize("path", ["/data", "/mnt/a b", "/usr/local/lib/x", "/home/user/.cache", "/processes", "/größe"])
def test_a_path_of_its_own_is_fine(path: str) -> None:
    assert check_mount_path(path) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "absolute"),
        ("data", "absolute"),
        ("../data", "absolute"),
        ("/", "root"),
        ("//data", "shortest"),
        ("/data/", "shortest"),
        ("/data/../etc", "shortest"),
        ("/data/./x", "shortest"),
        ("/data//x", "shortest"),
        ("/proc", "kernel"),
        ("/proc/1", "kernel"),
        ("/sys/fs/cgroup", "kernel"),
        ("/dev/shm", "kernel"),
        ("/etc", "needs"),
        ("/usr", "needs"),
        ("/a\nb", "printed"),
        ("/a\0b", "printed"),
        ("/" + "x" * 256, "long"),
        ("/x" * 600, "long"),
    ],
)
def test_other_paths_are_refused_with_the_reason(path: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        check_mount_path(path, what="volumes[0].mount")
    assert caught.value.field == "volumes[0].mount"


def request(name: str, mount: str, *, read_only: bool = False) -> VolumeRequest:
    return VolumeRequest(name=name, mount=mount, read_only=read_only)


@pytest.mark.parametrize(
    ("second", "field"),
    [
        (request("b", "/mnt/b"), None),
        (request("b", "/database"), None),
        (request("a", "/mnt/b"), "volumes[1].name"),
        (request("b", "/data"), "volumes[1].mount"),
        (request("b", "/data/below"), "volumes[1].mount"),
        (request("-b", "/mnt/b"), "volumes[1].name"),
        (request("b", "relative"), "volumes[1].mount"),
        (request("b", "/b", read_only=True), "volumes"),
    ],
)
def test_volumes_of_one_machine_do_not_get_in_each_others_way(second: VolumeRequest, field: str | None) -> None:
    requests = [request("a", "/data"), second]
    if field is None:
        check_requests(requests, writable_max=2, read_only_max=0)
        return
    with pytest.raises(InvalidInput) as caught:
        check_requests(requests, writable_max=2, read_only_max=0)
    assert caught.value.field == field


def test_a_mount_around_an_earlier_one_is_refused_too() -> None:
    with pytest.raises(InvalidInput, match="/data/below"):
        check_requests([request("a", "/data/below"), request("b", "/data")], writable_max=2, read_only_max=0)


def test_the_guest_is_told_devices_and_paths() -> None:
    requests = [request("b", "/mnt/b", read_only=True), request("a", "/data")]
    assert [item.mode for item in requests] == [AttachMode.READ_ONLY, AttachMode.READ_WRITE]
    assert plan_mounts(requests, ["/dev/vdf", "/dev/vdb"]) == [
        VolumeMount(device="/dev/vdb", mount="/data", fs="ext4", read_only=False),
        VolumeMount(device="/dev/vdf", mount="/mnt/b", fs="ext4", read_only=True),
    ]

"""Shapes of texts that schemas of several kinds demand, by a name, so that refusals have words for each."""

from __future__ import annotations

GUEST_FILE = r"^/[^\x00]*$"
FILE_MODE_BITS = r"^[0-7]{1,5}$(?!\n)"
MOUNT_PATH = r"^/[^\x00]+$"
VOLUME_NAME = r"^[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]*$(?!\n)"
ASSIGNMENT = r"^[A-Za-z_][A-Za-z0-9_]*=[^\x00]*$"
SIGNAL = r"^(SIG)?[A-Z][A-Z0-9+-]{1,9}$(?!\n)"
EVENT_KIND = r"^[a-z]+(\.(\*|[a-z]+))?$(?!\n)"

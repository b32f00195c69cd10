"""What one sandbox may have at the most and at the least; the host sets tighter limits of its own (control.limits).

Numbers only, in a module of their own: the command line needs them for the contract and should not wait for ``model``.
"""

from __future__ import annotations

MIN_MEMORY_MIB = 128
MAX_MEMORY_MIB = 1_048_576
MAX_CPUS = 64
MAX_EXEC_TIMEOUT_S = 86_400
MAX_COPIES = 64
"""Of one sandbox or checkpoint, in one call."""
MIN_VOLUME_MIB = 16
"""Less leaves an ext4 with a journal no room worth the name."""
MAX_DISK_MIB = 1024 * 1024
"""1 TiB: an emulated guest takes 10 s to grow its file system to that; more data belongs into volumes."""
MAX_FILES = 64
"""Given with a new sandbox; ``MAX_FILES_BYTES`` together. More belongs into an image or a volume."""
MAX_FILES_BYTES = 512 * 1024
MAX_INIT_COMMANDS = 64
MAX_INIT_BYTES = 64 * 1024
"""Of all words of all of them."""
DEFAULT_INIT_TIMEOUT_S = 600
MAX_VOLUME_MIB = 16 * 1024 * 1024
"""16 TiB: the largest file of an ext4 with blocks of 4 KiB, which is what most hosts keep volumes on."""
MAX_MOUNT_PATH_BYTES = 1024
MAX_NET_ENTRIES = 1000
"""Most hosts, and most networks, that a network policy lists."""
SLOWEST_BYTES_PER_S = 10_000
FASTEST_BYTES_PER_S = 100_000_000_000
MAX_SECRET_BYTES = 32_768
"""The value of one secret."""
MAX_SECRETS_USED = 16
"""By one sandbox, or one command: together they fit into what a machine is told of itself."""

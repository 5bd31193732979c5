"""What of the built-in store may be set, with units, defaults, and what breaks when a value is wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    concurrent_downloads: int = 3
    """Blobs fetched at once, over all pulls. More need more memory (about 2 MiB each) and anger public registries."""
    reserve_bytes: int = 64 << 20
    """Left free on the filesystem. At 0 a pull may fill the disk that the node's own logs need."""
    connect_timeout: float = 15.0
    """Seconds for name, connection and TLS. Too short fails pulls over slow links at their start."""
    idle_timeout: float = 30.0
    """Seconds without a byte after which a connection is given up. Too long holds a node task to its deadline."""
    request_timeout: float = 60.0
    """Seconds for a whole manifest or token, which are small."""
    keep_partial_seconds: float = 24 * 3600.0
    """How long what an interrupted pull left is kept for going on with."""

"""Real parts that tests run: docker-registry, containerd, skopeo; a proxy that makes a registry slow or broken; network
namespaces whose wires break, disks that fill up, and clocks that are off.

Each is a process (or, the proxy, a server on the test's own loop) with its files in a folder of its own under the
system's temporary folder, an address on loopback that was free, and a `stop` that leaves nothing behind. All are
context managers. What a part cannot do without, a program or root, it says in one line when it starts.
"""

from tests.parts.containerd import Containerd
from tests.parts.images import PushedImage
from tests.parts.process import PartError
from tests.parts.proxy import RegistryProxy
from tests.parts.registry import Registry

__all__ = ["Containerd", "PartError", "PushedImage", "Registry", "RegistryProxy"]

"""`cloudhub demo`: the whole product on one machine, to be seen in a minute.

Everything runs as its users run it: the hub, each agent and each join is a process of its own, over TLS on loopback.
Only the private registry, which the product does not have, lives in the demo's own process.
"""

from cloudhub.demo.run import DemoOptions, run_demo

__all__ = ["DemoOptions", "run_demo"]

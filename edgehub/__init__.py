"""The agent on an edge node: one session to the hub, pulls through the node's container runtime, reports."""

"""What the hub and the agent agree on: wire messages, job API models, image references, registry credentials.

Both programs import this package; it imports neither of them, does no I/O and keeps no state.
"""

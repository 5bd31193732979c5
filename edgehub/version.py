"""The agent's version. A constant, and not asked of `importlib.metadata`: that reads the list of all packages and costs
a node 1 MB of memory. A test holds it equal to the package's."""

from typing import Final

VERSION: Final = "0.1.0"

"""Imports of libraries without what they import for uses that an agent does not make of them.

Problem: an agent stays for a year on a small machine, and a Python module that is loaded is never unloaded. pydantic
and websockets load `importlib.metadata` (to look for plugins of pydantic, to tell the version of a checkout) and
`urllib.request` (to ask for proxies, which the link never uses), and with these come e-mail, HTTP, zip and csv: 2 MB.

Guarantee: importing this module first imports both libraries with empty stand-ins for the two modules. From then on
everybody who imports the two gets the real ones. pydantic finds no plugins: none is meant for an agent. Should a later
version of a library ask more of a stand-in, its import fails at once, and not some day.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def _no_entry_points(**_: Any) -> tuple[()]:
    return ()


_stand_ins = {name: ModuleType(name) for name in ("importlib.metadata", "urllib.request") if name not in sys.modules}
for _stand_in in _stand_ins.values():
    _stand_in.__dict__["entry_points"] = _no_entry_points
sys.modules.update(_stand_ins)
try:
    import pydantic
    import websockets.asyncio.client  # noqa: F401

    class _Plain(pydantic.BaseModel):
        """The first model is what makes pydantic look for plugins."""
finally:
    for _name in _stand_ins:
        del sys.modules[_name]

__all__: list[str] = []

"""The built-in image store: pulls by the OCI distribution API into an OCI image layout on disk.

``store`` is what others use. Below it, each on top of the next: ``pull`` (one pull), ``workspace`` (what pulls share),
``download`` (one blob), ``repository`` (the distribution API), ``auth``, ``transport`` (HTTP), ``layout`` (the disk),
``manifest`` and ``platforms`` (pure).
"""

from edgehub.runtime.oci.settings import StoreSettings
from edgehub.runtime.oci.store import BuiltinStore, ImageStore

__all__ = ["BuiltinStore", "ImageStore", "StoreSettings"]

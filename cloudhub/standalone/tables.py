"""``meta.k8s.io/v1`` Tables: what ``kubectl get`` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any


def render_table(
    objects: Iterable[Mapping[str, Any]],
    *,
    group: str,
    kind: str,
    now: datetime,
    printer_columns: Sequence[Mapping[str, Any]] | None = None,
    list_metadata: Mapping[str, Any] | None = None,
    include_object: str = "Metadata",
    version: str = "v1",
    headers: bool = True,
) -> dict[str, Any]:
    """A Table of ``objects``. ``printer_columns`` is a CRD version's additionalPrinterColumns (None: a built-in kind);
    ``include_object`` is the query's includeObject (None, Metadata, Object); ``version`` is v1 or v1beta1;
    ``headers`` False leaves out columnDefinitions, as for the second and later events of a watch."""
    raise NotImplementedError

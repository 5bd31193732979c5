"""`edgehub images`: what the node's runtime holds, asked of the runtime itself; the agent need not run."""

from __future__ import annotations

from collections.abc import Sequence

from edgehub.agent import configured_runtime
from edgehub.config import EdgeCoreConfig
from edgehub.runtime.base import ImageRecord
from edgehub.show import size_text


async def list_images(config: EdgeCoreConfig) -> list[ImageRecord]:
    """Raises `RuntimeUnavailable`."""
    runtime = configured_runtime(config)
    try:
        return await runtime.list()
    finally:
        await runtime.close()


def images_text(records: Sequence[ImageRecord]) -> str:
    rows = [("IMAGE", "ID", "SIZE")]
    for record in records:
        names = record.tags or record.digests or ("<none>",)
        rows += [(name, record.id.removeprefix("sha256:")[:12], size_text(record.size)) for name in names]
    rows[1:] = sorted(rows[1:])
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {id_:<{widths[1]}}  {size}" for name, id_, size in rows)

"""What Alembic runs to migrate: on the connection and in the transaction that `cloudhub.store.engine` gives it."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    # SQLite cannot alter most of a table in place; batch mode copies it.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()

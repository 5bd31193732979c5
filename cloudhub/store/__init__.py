"""What the hub keeps on disk: SQLAlchemy Core on SQLite, and the one package that knows so.

`cloudhub.store.engine` opens database files, `cloudhub.store.queue` is the queue of jobs and node tasks.
"""

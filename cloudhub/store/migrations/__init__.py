"""Numbered migrations, one folder a schema; `cloudhub.store.engine` runs them when a database is opened."""

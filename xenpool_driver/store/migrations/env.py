# Licensed under the Apache License, Version 2.0; see LICENSE.
"""Run by alembic inside of ``xenpool_driver.store.migration``, which hands in
a connection that is in a transaction already."""

from __future__ import annotations

from alembic import context

from xenpool_driver.store import schema

connection = context.config.attributes['connection']
context.configure(
    connection=connection,
    target_metadata=schema.METADATA,
    version_table=schema.VERSION_TABLE,
    render_as_batch=connection.dialect.name == 'sqlite',
)
with context.begin_transaction():
    context.run_migrations()

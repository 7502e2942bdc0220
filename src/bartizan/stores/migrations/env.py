"""Alembic's entry: migrates over the engine that was handed in."""

from alembic import context

engine = context.config.attributes["engine"]

with engine.connect().execution_options(bartizan_write=True) as connection:
    context.configure(connection=connection, transactional_ddl=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Two processes that open a new database at once migrate one after the other.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7089070220014813550)")
        context.run_migrations()
    connection.commit()

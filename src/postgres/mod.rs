//! Postgres: connection, slot, publication, catalog, COPY.

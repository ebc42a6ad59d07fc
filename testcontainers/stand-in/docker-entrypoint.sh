#!/bin/bash
# What the official Postgres image promises, as far as tests and compose/ use it: POSTGRES_USER, _PASSWORD,
# _DB, _HOST_AUTH_METHOD, _INITDB_ARGS, PGDATA, /docker-entrypoint-initdb.d/*.sql and *.sh. As there, the server
# for the setup logs to stdout and hears no network, the real one logs to stderr.
set -e
: "${POSTGRES_USER:=postgres}" "${PGDATA:=/var/lib/postgresql/data}"
: "${POSTGRES_DB:=$POSTGRES_USER}" "${POSTGRES_HOST_AUTH_METHOD:=scram-sha-256}"
export POSTGRES_USER POSTGRES_DB PGDATA
[ "${1#-}" = "$1" ] || set -- postgres "$@"
[ "${1:-postgres}" = postgres ] || exec "$@"

setup() {
    [ -n "${POSTGRES_PASSWORD:-}" ] || { echo 'POSTGRES_PASSWORD is not set' >&2; exit 1; }
    local password
    password=$(mktemp)
    printf %s "$POSTGRES_PASSWORD" >"$password"
    chown postgres "$password"
    # shellcheck disable=SC2086
    gosu postgres initdb -D "$PGDATA" -U "$POSTGRES_USER" -A "$POSTGRES_HOST_AUTH_METHOD" \
        --pwfile="$password" -E UTF8 --locale=C.UTF-8 $POSTGRES_INITDB_ARGS
    rm "$password"
    {
        echo 'local all all trust'
        echo "host all all all $POSTGRES_HOST_AUTH_METHOD"
        echo "host replication all all $POSTGRES_HOST_AUTH_METHOD"
    } >"$PGDATA/pg_hba.conf"
    gosu postgres pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
    [ "$POSTGRES_DB" = postgres ] || createdb -U "$POSTGRES_USER" "$POSTGRES_DB"
    for file in /docker-entrypoint-initdb.d/*; do
        case $file in
        *.sh) bash "$file" ;;
        *.sql) psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file" ;;
        esac
    done
    gosu postgres pg_ctl -D "$PGDATA" -m fast -w stop
    echo 'PostgreSQL init process complete; ready for start up.'
}

mkdir -p "$PGDATA" /var/run/postgresql
chown -R postgres "$PGDATA" /var/run/postgresql
chmod 700 "$PGDATA"
[ -s "$PGDATA/PG_VERSION" ] || setup
shift || true
exec gosu postgres postgres -D "$PGDATA" -c listen_addresses='*' "$@"

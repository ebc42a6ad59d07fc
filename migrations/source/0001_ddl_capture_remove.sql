-- frazil uninstall-ddl-capture: all that 0001_ddl_capture.sql made. Can be run again.

DROP EVENT TRIGGER IF EXISTS frazil_ddl_command_end;
DROP EVENT TRIGGER IF EXISTS frazil_sql_drop;
DROP EVENT TRIGGER IF EXISTS frazil_table_rewrite;

DO $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT t.tgname, t.tgrelid::pg_catalog.regclass AS place
        FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'frazil' AND t.tgname ~ '^frazil_truncate_[0-9]+$'
          AND p.proname IN ('before_root_truncate', 'after_leaf_truncate')
    LOOP
        EXECUTE pg_catalog.format('DROP TRIGGER %I ON %s', one.tgname, one.place);
    END LOOP;
END $$;

DROP FUNCTION IF EXISTS frazil.on_ddl_command_end(), frazil.on_sql_drop(),
    frazil.on_table_rewrite(), frazil.watch_all_leaves(), frazil.watch_leaves(oid),
    frazil.after_leaf_truncate(), frazil.before_root_truncate(), frazil.changed_below(oid[]),
    frazil.tables_using(oid[]), frazil.describe_all(oid[], oid[]), frazil.describe(oid),
    frazil.type_shapes_of(oid), frazil.publications_of(oid), frazil.leaves_of(oid),
    frazil.line_of(oid), frazil.emit(jsonb);

DROP SEQUENCE IF EXISTS frazil.token;

-- Stays where something of somebody else's is in it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'frazil') THEN
        DROP SCHEMA frazil RESTRICT;
    END IF;
EXCEPTION WHEN dependent_objects_still_exist THEN
    RAISE NOTICE 'schema frazil holds other objects and stays';
END $$;

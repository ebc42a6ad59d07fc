-- frazil install-ddl-capture, version 1.
--
-- Says in the stream what Postgres does not: each ALTER TABLE and the like, rewrites, dropped tables,
-- partitions that come and go or are truncated, changed types and publications. By event triggers that
-- emit transactional logical messages (prefix `frazil.ddl`, JSON), so that a message stands in the
-- stream just where the change happened, and is absent where it was rolled back.
--
-- Needs: Postgres 14, and a superuser or what a managed service has in its place (the role that may
-- CREATE EVENT TRIGGER; to see TRUNCATE of single partitions it must also own the partitions).
-- Can be run again. Undone by 0001_ddl_capture_remove.sql. A failure in here never fails the user's
-- statement: it is a WARNING, and frazil's own looks at the catalog remain.

DO $$
BEGIN
    IF current_setting('server_version_num')::int < 140000 THEN
        RAISE EXCEPTION 'logical messages are decoded from Postgres 14 on'
            USING ERRCODE = 'feature_not_supported';
    END IF;
    -- These functions run with our rights: nobody else may own what they call.
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles r ON r.oid = n.nspowner
               WHERE n.nspname = 'frazil' AND r.rolname <> current_user AND NOT r.rolsuper)
       OR EXISTS (SELECT FROM pg_catalog.pg_proc p
                  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                  JOIN pg_catalog.pg_roles r ON r.oid = p.proowner
                  WHERE n.nspname = 'frazil' AND r.rolname <> current_user AND NOT r.rolsuper) THEN
        RAISE EXCEPTION 'schema frazil, or a function in it, belongs to another role'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS frazil;
REVOKE ALL ON SCHEMA frazil FROM PUBLIC;
COMMENT ON SCHEMA frazil IS 'frazil: DDL capture, removed by `frazil uninstall-ddl-capture`';

-- Any role may emit a logical message, so frazil believes those that know this number. A sequence,
-- since it is kept, is never published, and can be read only by who may.
CREATE SEQUENCE IF NOT EXISTS frazil.token;
DO $$
DECLARE
    reader name;
BEGIN
    IF NOT (SELECT is_called FROM frazil.token) THEN
        PERFORM pg_catalog.setval('frazil.token', ('x' || pg_catalog.substr(
            pg_catalog.md5(pg_catalog.gen_random_uuid()::text), 1, 15))::bit(60)::bigint + 1);
    END IF;
    -- Who may replicate reads all messages anyway.
    FOR reader IN SELECT rolname FROM pg_catalog.pg_roles
                  WHERE rolreplication AND NOT rolsuper OR rolname = 'rds_replication' LOOP
        EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA frazil TO %I', reader);
        EXECUTE pg_catalog.format('GRANT SELECT ON SEQUENCE frazil.token TO %I', reader);
    END LOOP;
END $$;

-- One message. UTF-8 whatever the database's encoding is: the server sends the bytes as they are.
CREATE OR REPLACE FUNCTION frazil.emit(message jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM pg_logical_emit_message(true, 'frazil.ddl', convert_to(
        (message || jsonb_build_object('token', (SELECT last_value FROM frazil.token)))::text,
        'UTF8'));
END $$;

-- A table and the partitioned tables above it, nearest first.
CREATE OR REPLACE FUNCTION frazil.line_of(relation oid) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH RECURSIVE line(oid, depth) AS (
            SELECT relation, 0
          UNION ALL
            SELECT i.inhparent, l.depth + 1 FROM line l
            JOIN pg_class c ON c.oid = l.oid AND c.relispartition
            JOIN pg_inherits i ON i.inhrelid = l.oid)
        SELECT array_agg(line.oid ORDER BY depth) FROM line);
END $$;

-- Leaf partitions: oid and file.
CREATE OR REPLACE FUNCTION frazil.leaves_of(relation oid)
RETURNS TABLE (leaf oid, file oid)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
        WITH RECURSIVE tree(member, kind, relfile) AS (
            SELECT c.oid, c.relkind, c.relfilenode FROM pg_class c
            WHERE c.oid = relation AND c.relkind = 'p'
          UNION ALL
            SELECT c.oid, c.relkind, c.relfilenode FROM tree t
            JOIN pg_inherits i ON i.inhparent = t.member JOIN pg_class c ON c.oid = i.inhrelid)
        SELECT t.member, t.relfile FROM tree t WHERE t.kind <> 'p';
END $$;

-- Every publication, what it publishes, and what it shows of a table.
CREATE OR REPLACE FUNCTION frazil.publications_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    version int := current_setting('server_version_num')::int;
    line oid[] := frazil.line_of(relation);
    one record;
    found jsonb := '[]';
    has_own bool;
    has_above bool;
    is_shown bool;
    entry oid;
    attributes int2[];
    filter text;
    generated bool;
    kind "char";
    persistence "char";
BEGIN
    SELECT c.relkind, c.relpersistence INTO kind, persistence FROM pg_class c WHERE c.oid = relation;
    FOR one IN SELECT p.* FROM pg_publication p ORDER BY p.pubname LOOP
        entry := NULL; attributes := NULL; filter := NULL; generated := false;
        has_own := one.puballtables;
        has_above := one.puballtables AND cardinality(line) > 1;
        IF version >= 150000 THEN
            SELECT r.oid, r.prattrs::int2[], pg_get_expr(r.prqual, r.prrelid)
            INTO entry, attributes, filter
            FROM pg_publication_rel r WHERE r.prpubid = one.oid AND r.prrelid = relation;
            has_own := has_own OR EXISTS (
                SELECT FROM pg_publication_namespace n JOIN pg_class c ON c.relnamespace = n.pnnspid
                WHERE n.pnpubid = one.oid AND c.oid = relation);
            has_above := has_above OR EXISTS (
                SELECT FROM pg_publication_namespace n JOIN pg_class c ON c.relnamespace = n.pnnspid
                WHERE n.pnpubid = one.oid AND c.oid = ANY(line[2:]));
        ELSE
            SELECT r.oid INTO entry
            FROM pg_publication_rel r WHERE r.prpubid = one.oid AND r.prrelid = relation;
        END IF;
        IF version >= 180000 THEN
            generated := to_jsonb(one) ->> 'pubgencols' = 's';
        END IF;
        has_own := has_own OR entry IS NOT NULL;
        has_above := has_above OR EXISTS (
            SELECT FROM pg_publication_rel r WHERE r.prpubid = one.oid AND r.prrelid = ANY(line[2:]));
        is_shown := persistence = 'p' AND CASE WHEN one.pubviaroot THEN has_own AND NOT has_above
                                          ELSE kind = 'r' AND (has_own OR has_above) END;
        found := found || jsonb_build_object(
            'name', one.pubname, 'insert', one.pubinsert, 'update', one.pubupdate,
            'delete', one.pubdelete, 'truncate', one.pubtruncate, 'via_root', one.pubviaroot,
            'entry', entry::int8, 'is_shown', is_shown, 'columns', to_jsonb(attributes),
            'generated', generated, 'row_filter', filter);
    END LOOP;
    RETURN found;
END $$;

-- Labels of the enums and attributes of the composite types that a table's columns are made of.
CREATE OR REPLACE FUNCTION frazil.type_shapes_of(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH RECURSIVE used(typ) AS (
            SELECT a.atttypid FROM pg_attribute a
            WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
              AND a.atttypid >= 16384
          UNION
            SELECT x.typ FROM used u JOIN pg_type t ON t.oid = u.typ
            CROSS JOIN LATERAL (
                SELECT t.typbasetype WHERE t.typbasetype >= 16384
              UNION ALL SELECT t.typelem WHERE t.typelem >= 16384
              UNION ALL SELECT r.rngsubtype FROM pg_range r
                WHERE r.rngtypid = t.oid AND r.rngsubtype >= 16384
              UNION ALL SELECT a.atttypid FROM pg_attribute a
                WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0
                  AND NOT a.attisdropped AND a.atttypid >= 16384) x(typ)),
        shapes(key, shape) AS (
            SELECT 'e' || e.oid, e.enumlabel::text
            FROM used u JOIN pg_enum e ON e.enumtypid = u.typ
          UNION ALL
            SELECT 'c' || a.attrelid || '.' || a.attnum,
                   format('%s:%s:%s', a.attname, a.atttypid, a.atttypmod)
            FROM used u JOIN pg_type t ON t.oid = u.typ AND t.typtype = 'c'
            JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
        SELECT coalesce(jsonb_object_agg(key, shape), '{}') FROM shapes);
END $$;

-- All that frazil's look at the catalog would find out of a table, as of now. The settings say how
-- constants are written.
CREATE OR REPLACE FUNCTION frazil.describe(relation oid) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET timezone = 'UTC'
SET extra_float_digits = 3 SET bytea_output = 'hex' SET xmlbinary = 'base64' AS $$
DECLARE
    leaves_max CONSTANT int := 2000;
    missing_bytes_max CONSTANT int := 65536;
    version int := current_setting('server_version_num')::int;
    line oid[] := frazil.line_of(relation);
    leaves jsonb;
    members oid[];
BEGIN
    SELECT CASE WHEN count(*) <= leaves_max
                THEN coalesce(jsonb_object_agg(l.leaf::text, l.file::int8), '{}') END,
           array_agg(l.leaf)
    INTO leaves, members FROM frazil.leaves_of(relation) l;
    RETURN (SELECT jsonb_build_object(
        'oid', c.oid::int8, 'namespace', n.nspname, 'name', c.relname,
        'relfilenode', c.relfilenode::int8, 'kind', c.relkind, 'is_partition', c.relispartition,
        'persistence', c.relpersistence, 'identity', c.relreplident,
        'estimated_rows', c.reltuples, 'relpages', c.relpages, 'relnatts', c.relnatts,
        'ancestors', to_jsonb((SELECT coalesce(array_agg(x::int8), '{}') FROM unnest(line[2:]) x)),
        'leaves', leaves,
        'type_shapes', frazil.type_shapes_of(relation),
        'publications', frazil.publications_of(relation),
        'attributes', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'attnum', a.attnum, 'name', a.attname, 'type_oid', a.atttypid::int8,
                'typmod', a.atttypmod, 'toastable', a.attstorage <> 'p',
                'not_null', a.attnotnull, 'has_missing', a.atthasmissing OR m.in_leaves,
                'missing', CASE WHEN octet_length(m.missing) <= missing_bytes_max
                                THEN m.missing END,
                'has_default', a.atthasdef, 'xmin', a.xmin::text,
                'generated', a.attgenerated <> '',
                'hidden', version < 180000 AND a.attgenerated <> '') ORDER BY a.attnum), '[]')
            FROM pg_attribute a
            -- A partitioned table has no rows: what older rows have stands at its leaves.
            CROSS JOIN LATERAL (
                SELECT count(l.attrelid) > 0 AS in_leaves,
                       coalesce(a.attmissingval::text,
                                CASE WHEN count(DISTINCT l.attmissingval::text) = 1
                                     THEN min(l.attmissingval::text) END) AS missing
                FROM pg_attribute l
                WHERE c.relkind = 'p' AND l.attname = a.attname AND l.atthasmissing
                  AND l.attrelid = ANY(members) AND NOT l.attisdropped) m
            WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped),
        'keys', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'is_primary', i.indisprimary, 'is_identity', i.indisreplident,
                'is_immediate', i.indimmediate,
                'attnums', (SELECT jsonb_agg(k.attnum ORDER BY k.ord)
                            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, ord)
                            WHERE k.ord <= i.indnkeyatts))), '[]')
            FROM pg_index i
            WHERE i.indrelid = relation AND i.indisvalid
              AND (i.indisprimary OR i.indisreplident)))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = relation AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't');
END $$;

-- The descriptions of `always`, and of those of `others` that a publication shows.
CREATE OR REPLACE FUNCTION frazil.describe_all(always oid[], others oid[]) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        SELECT coalesce(jsonb_agg(d.it ORDER BY d.it -> 'oid'), '[]')
        FROM (SELECT DISTINCT u.relation FROM unnest(always || others) u(relation)) r,
             LATERAL (SELECT frazil.describe(r.relation)) d(it)
        WHERE d.it IS NOT NULL
          AND (r.relation = ANY(always)
               OR jsonb_path_exists(d.it, '$.publications[*] ? (@.is_shown == true)')));
END $$;

-- The tables with a column of one of these types, however deep inside.
CREATE OR REPLACE FUNCTION frazil.tables_using(types oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (
        WITH RECURSIVE affected(typ) AS (
            SELECT unnest(types)
          UNION
            SELECT x.typ FROM affected a CROSS JOIN LATERAL (
                SELECT d.objid FROM pg_depend d
                WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = a.typ
                  AND d.classid = 'pg_type'::regclass
              UNION ALL
                SELECT c.reltype FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
                WHERE d.refclassid = 'pg_type'::regclass AND d.refobjid = a.typ
                  AND d.classid = 'pg_class'::regclass AND c.reltype <> 0) x(typ))
        SELECT coalesce(array_agg(DISTINCT c.oid), '{}') FROM affected a
        JOIN pg_depend d ON d.refclassid = 'pg_type'::regclass AND d.refobjid = a.typ
                        AND d.classid = 'pg_class'::regclass
        JOIN pg_class c ON c.oid = d.objid
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't');
END $$;

-- What this transaction has changed below these tables: the command names the uppermost one only.
CREATE OR REPLACE FUNCTION frazil.changed_below(relations oid[]) RETURNS oid[]
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours int := age(pg_current_xact_id()::xid);
BEGIN
    RETURN (
        WITH RECURSIVE tree(member) AS (
            SELECT i.inhrelid FROM pg_inherits i WHERE i.inhparent = ANY(relations)
          UNION
            SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.member)
        SELECT coalesce(array_agg(t.member), '{}') FROM tree t JOIN pg_class c ON c.oid = t.member
        WHERE age(c.xmin) <= ours
           OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.member AND age(a.xmin) <= ours)
           OR EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = t.member AND age(i.xmin) <= ours));
END $$;

-- TRUNCATE of a partition is not published where its root is, and no event trigger knows TRUNCATE.
-- A root says which partitions its own TRUNCATE will reach (that one is published) ...
CREATE OR REPLACE FUNCTION frazil.before_root_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('frazil.truncating', coalesce(current_setting('frazil.truncating', true), '')
        || (SELECT coalesce(string_agg(' ' || l.leaf || ' ', ''), '')
            FROM frazil.leaves_of(TG_RELID) l), true);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'frazil: TRUNCATE of % was not captured: %', TG_RELID::regclass, SQLERRM;
    RETURN NULL;
END $$;

-- ... and a partition speaks up when it was truncated by itself.
CREATE OR REPLACE FUNCTION frazil.after_leaf_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    truncating text := coalesce(current_setting('frazil.truncating', true), '');
    me text := ' ' || TG_RELID || ' ';
    line oid[];
BEGIN
    IF position(me IN truncating) > 0 THEN
        PERFORM set_config('frazil.truncating', replace(truncating, me, ''), true);
        RETURN NULL;
    END IF;
    line := frazil.line_of(TG_RELID);
    PERFORM frazil.emit(jsonb_build_object(
        'v', 1, 'kind', 'truncate', 'tag', 'TRUNCATE TABLE',
        'leaves', jsonb_build_array(jsonb_build_object(
            'oid', TG_RELID::int8, 'root', line[cardinality(line)]::int8,
            'change', 'truncated', 'is_empty', false)),
        'relations', frazil.describe_all('{}', line)));
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'frazil: TRUNCATE of % was not captured: %', TG_RELID::regclass, SQLERRM;
    RETURN NULL;
END $$;

-- Gives and takes the triggers of one tree (`root` is the uppermost table), or of what was one.
-- What became a leaf or ceased to be one, as JSON.
CREATE OR REPLACE FUNCTION frazil.watch_leaves(root oid) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET lock_timeout = '3s' SET frazil.is_watching = 'on' AS $$
DECLARE
    trigger_name CONSTANT text := 'frazil_truncate_' || root;
    is_wanted bool := EXISTS (
        SELECT FROM unnest(ARRAY(
            WITH RECURSIVE tree(member) AS (
                SELECT c.oid FROM pg_class c
                WHERE c.oid = root AND c.relkind = 'p' AND NOT c.relispartition
              UNION ALL
                SELECT c.oid FROM tree t JOIN pg_inherits i ON i.inhparent = t.member
                JOIN pg_class c ON c.oid = i.inhrelid AND c.relkind = 'p')
            SELECT member FROM tree)) AS t(member)
        WHERE jsonb_path_exists(frazil.publications_of(t.member),
                                '$[*] ? (@.is_shown == true && @.via_root == true)'));
    one record;
    changes jsonb := '[]';
BEGIN
    FOR one IN
        WITH wanted AS (
            SELECT l.leaf, false AS is_root FROM frazil.leaves_of(root) l
            JOIN pg_class c ON c.oid = l.leaf AND c.relkind = 'r' WHERE is_wanted
            UNION ALL SELECT root, true WHERE is_wanted),
        present AS (
            SELECT t.tgrelid AS leaf FROM pg_depend d JOIN pg_trigger t ON t.oid = d.objid
            WHERE d.refclassid = 'pg_proc'::regclass AND d.classid = 'pg_trigger'::regclass
              AND d.refobjid IN ('frazil.before_root_truncate'::regproc,
                                 'frazil.after_leaf_truncate'::regproc)
              AND t.tgname = trigger_name)
        SELECT coalesce(w.leaf, p.leaf) AS leaf, coalesce(w.is_root, p.leaf = root) AS is_root,
               w.leaf IS NOT NULL AS is_member
        FROM wanted w FULL JOIN present p ON p.leaf = w.leaf
        WHERE w.leaf IS NULL OR p.leaf IS NULL
    LOOP
        IF NOT one.is_member THEN
            EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, one.leaf::regclass);
        ELSIF one.is_root THEN
            EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %s FOR EACH STATEMENT '
                'EXECUTE FUNCTION frazil.before_root_truncate()', trigger_name, one.leaf::regclass);
        ELSE
            EXECUTE format('CREATE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT '
                'EXECUTE FUNCTION frazil.after_leaf_truncate()', trigger_name, one.leaf::regclass);
        END IF;
        IF one.is_member THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', one.leaf::regclass,
                           trigger_name);
        END IF;
        IF NOT one.is_root THEN
            changes := changes || jsonb_build_object(
                'oid', one.leaf::int8, 'root', root::int8,
                'change', CASE WHEN one.is_member THEN 'attached' ELSE 'detached' END,
                'is_empty', pg_relation_size(one.leaf) = 0);
        END IF;
    END LOOP;
    RETURN changes;
END $$;

-- All roots there are, at the installation and when a publication changes.
CREATE OR REPLACE FUNCTION frazil.watch_all_leaves() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    root oid;
BEGIN
    FOR root IN SELECT c.oid FROM pg_class c WHERE c.relkind = 'p' AND NOT c.relispartition LOOP
        BEGIN
            PERFORM frazil.watch_leaves(root);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'frazil: TRUNCATE of partitions of % will not be captured: %',
                root::regclass, SQLERRM;
        END;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION frazil.on_ddl_command_end() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relations_max CONSTANT int := 1000;
    direct oid[];
    types oid[];
    publications text[];
    listed oid[];
    root oid;
    found jsonb;
    changes jsonb := '[]';
    users oid[] := '{}';
BEGIN
    -- Our own ALTER TABLE ... ENABLE ALWAYS TRIGGER.
    IF current_setting('frazil.is_watching', true) = 'on' THEN
        RETURN;
    END IF;
    SELECT coalesce(array_agg(DISTINCT c.oid)
               FILTER (WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'), '{}'),
           coalesce(array_agg(DISTINCT CASE e.classid WHEN 'pg_type'::regclass THEN e.objid
                                                      ELSE c.reltype END)
               FILTER (WHERE e.classid = 'pg_type'::regclass
                          OR tg_tag LIKE 'ALTER%' AND c.reltype <> 0 AND c.relpersistence <> 't'),
                    '{}'),
           array_agg(DISTINCT p.pubname::text) FILTER (WHERE p.oid IS NOT NULL),
           coalesce(array_agg(DISTINCT r.prrelid) FILTER (WHERE r.oid IS NOT NULL), '{}')
    INTO direct, types, publications, listed
    FROM pg_event_trigger_ddl_commands() e
    LEFT JOIN pg_class c ON e.classid = 'pg_class'::regclass AND c.oid = e.objid
    LEFT JOIN pg_publication_rel r
           ON e.classid = 'pg_publication_rel'::regclass AND r.oid = e.objid
    LEFT JOIN pg_publication p
           ON p.oid = CASE e.classid WHEN 'pg_publication'::regclass THEN e.objid
                                     ELSE r.prpubid END;
    IF tg_tag IN ('CREATE PUBLICATION', 'ALTER PUBLICATION') THEN
        IF tg_tag = 'CREATE PUBLICATION' THEN
            listed := ARRAY(SELECT r.prrelid FROM pg_publication_rel r
                            JOIN pg_publication p ON p.oid = r.prpubid
                            WHERE p.pubname = ANY(publications) LIMIT relations_max);
        END IF;
        listed := listed || ARRAY(SELECT l.leaf FROM unnest(listed) u(relation),
                                  LATERAL frazil.leaves_of(u.relation) l LIMIT relations_max);
        PERFORM frazil.emit(jsonb_build_object(
            'v', 1, 'kind', 'publication', 'tag', tg_tag, 'publications', to_jsonb(publications),
            'relations', frazil.describe_all('{}', listed)));
        PERFORM frazil.watch_all_leaves();
        RETURN;
    END IF;
    IF cardinality(types) > 0 THEN
        users := frazil.tables_using(types);
    END IF;
    IF cardinality(direct) + cardinality(users) = 0 THEN
        RETURN;
    END IF;
    FOR root IN SELECT DISTINCT l.line[cardinality(l.line)]
                FROM unnest(direct) d(relation), LATERAL (SELECT frazil.line_of(d.relation)) l(line)
                JOIN pg_class c ON c.oid = l.line[cardinality(l.line)] AND c.relkind = 'p'
    LOOP
        BEGIN
            changes := changes || frazil.watch_leaves(root);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'frazil: TRUNCATE of partitions of % will not be captured: %',
                root::regclass, SQLERRM;
        END;
    END LOOP;
    found := frazil.describe_all(
        CASE WHEN tg_tag LIKE 'ALTER%' THEN direct ELSE '{}' END,
        direct || users || frazil.changed_below(direct)
            || ARRAY(SELECT DISTINCT a FROM unnest(direct) d(relation),
                     LATERAL unnest(frazil.line_of(d.relation)) a));
    IF found = '[]' THEN
        RETURN;
    END IF;
    PERFORM frazil.emit(jsonb_build_object(
        'v', 1, 'tag', tg_tag, 'leaves', changes, 'relations', found,
        'kind', CASE WHEN changes <> '[]' THEN 'partitions'
                     WHEN cardinality(direct) = 0 THEN 'type' ELSE 'end' END));
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'frazil: % was not captured: %', tg_tag, SQLERRM;
END $$;

CREATE OR REPLACE FUNCTION frazil.on_sql_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    dropped jsonb;
    publications text[];
    changed oid[];
    roots oid[];
BEGIN
    SELECT jsonb_agg(jsonb_build_object('oid', e.objid::int8, 'namespace', e.schema_name,
                                        'name', e.object_name, 'root', t.root::int8))
               FILTER (WHERE e.object_type = 'table'),
           array_agg(DISTINCT CASE e.object_type WHEN 'publication' THEN e.address_names[1]
                                                 ELSE e.address_args[1] END)
               FILTER (WHERE e.object_type IN ('publication', 'publication relation',
                                               'publication namespace')),
           coalesce(array_agg(DISTINCT e.objid)
               FILTER (WHERE e.object_type = 'table column' AND tg_tag <> 'ALTER TABLE'), '{}'),
           coalesce(array_agg(DISTINCT t.root)
               FILTER (WHERE e.object_type = 'table' AND t.root IS NOT NULL), '{}')
    INTO dropped, publications, changed, roots
    FROM pg_event_trigger_dropped_objects() e
    -- A partition's trigger goes with it, and its name says which root lost the partition.
    LEFT JOIN LATERAL (
        SELECT substr(g.address_names[3], length('frazil_truncate_') + 1)::oid AS root
        FROM pg_event_trigger_dropped_objects() g
        WHERE g.object_type = 'trigger' AND e.object_type = 'table'
          AND g.address_names[1:2] = ARRAY[e.schema_name, e.object_name]
          AND g.address_names[3] ~ '^frazil_truncate_[0-9]+$') t ON true
    WHERE NOT e.is_temporary;
    IF dropped IS NULL AND publications IS NULL AND cardinality(changed) = 0 THEN
        RETURN;
    END IF;
    PERFORM frazil.emit(jsonb_build_object(
        'v', 1, 'kind', 'drop', 'tag', tg_tag, 'dropped', coalesce(dropped, '[]'),
        'publications', to_jsonb(coalesce(publications, '{}')),
        'relations', frazil.describe_all('{}', changed || roots)));
    IF publications IS NOT NULL THEN
        PERFORM frazil.watch_all_leaves();
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'frazil: % was not captured: %', tg_tag, SQLERRM;
END $$;

-- Before the rewrite: the description shows the table as it was; that of the command's end follows.
CREATE OR REPLACE FUNCTION frazil.on_table_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation oid := pg_event_trigger_table_rewrite_oid();
    called_from text;
    found jsonb;
BEGIN
    found := frazil.describe_all('{}', frazil.line_of(relation));
    IF found = '[]' THEN
        RETURN;
    END IF;
    GET DIAGNOSTICS called_from = PG_CONTEXT;
    PERFORM frazil.emit(jsonb_build_object(
        'v', 1, 'kind', 'rewrite', 'tag', tg_tag, 'rewritten', relation::int8,
        'reason', pg_event_trigger_table_rewrite_reason(),
        -- Typed as it stands, and no USING in it: then a type change kept the values.
        'has_using', called_from LIKE E'%\n%' OR current_query() ~* '\musing\M',
        'relations', found));
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'frazil: the rewrite of % was not captured: %', relation::regclass, SQLERRM;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA frazil FROM PUBLIC;

DROP EVENT TRIGGER IF EXISTS frazil_ddl_command_end;
CREATE EVENT TRIGGER frazil_ddl_command_end ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE SCHEMA', 'ALTER TABLE',
                 'ALTER TYPE', 'ALTER DOMAIN', 'CREATE PUBLICATION', 'ALTER PUBLICATION')
    EXECUTE FUNCTION frazil.on_ddl_command_end();
DROP EVENT TRIGGER IF EXISTS frazil_sql_drop;
CREATE EVENT TRIGGER frazil_sql_drop ON sql_drop EXECUTE FUNCTION frazil.on_sql_drop();
DROP EVENT TRIGGER IF EXISTS frazil_table_rewrite;
CREATE EVENT TRIGGER frazil_table_rewrite ON table_rewrite
    EXECUTE FUNCTION frazil.on_table_rewrite();
-- Also where session_replication_role is replica: a subscriber's tables are altered too.
ALTER EVENT TRIGGER frazil_ddl_command_end ENABLE ALWAYS;
ALTER EVENT TRIGGER frazil_sql_drop ENABLE ALWAYS;
ALTER EVENT TRIGGER frazil_table_rewrite ENABLE ALWAYS;
-- The version stands where any role can read it.
COMMENT ON EVENT TRIGGER frazil_ddl_command_end IS 'frazil ddl capture 1';

SELECT frazil.watch_all_leaves();

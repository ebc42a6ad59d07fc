//! What changes the rows of a table, or what is published of them, without an event in the stream:
//! its leaf partitions, its entry in the publication, the labels and attributes of its types
//! (cases 47, 50, 108, 115 to 117). Read from the catalog, kept with the lake table, and compared.
//!
//! Source of the rules: Postgres manual, "System Catalogs" (pg_inherits, pg_publication_rel,
//! pg_enum, pg_attribute). Servers 13 to 18.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use crate::error::Result;
use crate::postgres::server_error::from_sql;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unannounced {
    /// `pg_class.relfilenode` of every leaf partition, by oid; empty for a table that is not
    /// partitioned.
    pub leaves: BTreeMap<u32, u32>,
    /// The publications that show it: what they publish, and its entries in them.
    pub published: String,
    /// Labels of its enums (`e` and `pg_enum.oid`) and attributes of its composite types (`c`,
    /// `pg_type.typrelid` and attnum).
    pub type_shapes: BTreeMap<String, String>,
}

impl Unannounced {
    /// Why rows of the lake may be other ones than the source's `now`; `None` where they can't.
    pub fn differs(&self, now: &Self) -> Option<&'static str> {
        if self.leaves != now.leaves {
            return Some("a partition was attached, detached, dropped, truncated or rewritten");
        }
        if self.published != now.published {
            return Some("what the publication shows of it changed");
        }
        let is_other = |(key, shape): (&String, &String)| now.type_shapes.get(key) != Some(shape);
        if self.type_shapes.iter().any(is_other) {
            return Some("a label of an enum or an attribute of a composite type changed");
        }
        let is_new = |key: &&String| key.starts_with('c') && !self.type_shapes.contains_key(*key);
        if now.type_shapes.keys().any(|key| is_new(&key)) {
            return Some("a composite type got a new attribute");
        }
        None
    }
}

/// What stands now of the tables `oids`, by oid; a table without any of it may be missing.
pub async fn load(
    client: &Client,
    publications: &[String],
    oids: &[u32],
) -> Result<HashMap<u32, Unannounced>> {
    let mut found: HashMap<u32, Unannounced> = HashMap::new();
    for row in client.query(LEAVES, &[&oids]).await.map_err(from_sql)? {
        found.entry(row.get(0)).or_default().leaves.insert(row.get(1), row.get(2));
    }
    for row in client.query(PUBLISHED, &[&oids, &publications]).await.map_err(from_sql)? {
        found.entry(row.get(0)).or_default().published = row.get(1);
    }
    for row in client.query(TYPE_SHAPES, &[&oids]).await.map_err(from_sql)? {
        found.entry(row.get(0)).or_default().type_shapes.insert(row.get(1), row.get(2));
    }
    Ok(found)
}

// Not pg_partition_tree(): it shows the present also to a transaction that reads the past.
const LEAVES: &str = "\
    WITH RECURSIVE tree(root, oid, kind, file) AS ( \
        SELECT c.oid, c.oid, c.relkind, c.relfilenode FROM pg_catalog.pg_class c \
        WHERE c.oid = ANY($1) AND c.relkind = 'p' \
      UNION ALL \
        SELECT t.root, c.oid, c.relkind, c.relfilenode FROM tree t \
        JOIN pg_catalog.pg_inherits i ON i.inhparent = t.oid \
        JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid) \
    SELECT root, oid, file FROM tree WHERE kind <> 'p'";

const PUBLISHED: &str = "\
    SELECT c.oid, string_agg(format('%s:%s%s%s%s%s:%s', p.pubname, p.pubinsert::int, \
               p.pubupdate::int, p.pubdelete::int, p.pubtruncate::int, p.pubviaroot::int, \
               (SELECT r.oid FROM pg_catalog.pg_publication_rel r \
                WHERE r.prpubid = p.oid AND r.prrelid = c.oid)), ',' ORDER BY p.pubname) \
    FROM pg_catalog.pg_class c CROSS JOIN pg_catalog.pg_publication p \
    WHERE c.oid = ANY($1) AND p.pubname = ANY($2) GROUP BY c.oid";

// Types of the system's own (below 16384) keep their shapes.
const TYPE_SHAPES: &str = "\
    WITH RECURSIVE used(relation, typ) AS ( \
        SELECT a.attrelid, a.atttypid FROM pg_catalog.pg_attribute a \
        WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid >= 16384 \
      UNION \
        SELECT u.relation, x.typ FROM used u JOIN pg_catalog.pg_type t ON t.oid = u.typ \
        CROSS JOIN LATERAL ( \
            SELECT t.typbasetype WHERE t.typbasetype >= 16384 \
          UNION ALL SELECT t.typelem WHERE t.typelem >= 16384 \
          UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r \
            WHERE r.rngtypid = t.oid AND r.rngsubtype >= 16384 \
          UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a \
            WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 \
              AND NOT a.attisdropped AND a.atttypid >= 16384) x(typ)) \
    SELECT u.relation, 'e' || e.oid, e.enumlabel::text FROM used u \
        JOIN pg_catalog.pg_enum e ON e.enumtypid = u.typ \
    UNION ALL \
    SELECT u.relation, 'c' || a.attrelid || '.' || a.attnum, \
           format('%s:%s:%s', a.attname, a.atttypid, a.atttypmod) FROM used u \
        JOIN pg_catalog.pg_type t ON t.oid = u.typ AND t.typtype = 'c' \
        JOIN pg_catalog.pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 \
            AND NOT a.attisdropped";

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(shapes: &[(&str, &str)]) -> Unannounced {
        let type_shapes = shapes.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Unannounced { type_shapes, ..Unannounced::default() }
    }

    #[test]
    fn a_new_label_is_no_change_of_rows_and_another_one_is() {
        let before = shapes(&[("e1", "open"), ("c5.1", "x:23:-1")]);
        let with = |more: (&str, &str)| {
            let mut now = before.clone();
            now.type_shapes.insert(more.0.to_owned(), more.1.to_owned());
            before.differs(&now).is_some()
        };
        assert!(!with(("e2", "closed")));
        assert!(with(("e1", "opened")));
        assert!(with(("c5.2", "y:23:-1")));
        assert!(with(("c5.1", "z:23:-1")));
        assert!(before.differs(&shapes(&[("e1", "open")])).is_some());
    }
}

-- Rows with a value of 8 kB out of line, uncompressed (and hardly compressible).
CREATE TABLE wide(id bigint PRIMARY KEY, n int NOT NULL, body text NOT NULL, tag varchar(20));
ALTER TABLE wide ALTER body SET STORAGE EXTERNAL;

CREATE PROCEDURE fill_wide(n bigint) LANGUAGE plpgsql AS $$
BEGIN
  FOR part IN 0..(n - 1) / 10000 LOOP
    INSERT INTO wide SELECT g, 0,
        (SELECT string_agg(md5((g * 300 + k)::text), '') FROM generate_series(1, 256) k), 'tag' || g
      FROM generate_series(part * 10000 + 1, least(n, (part + 1) * 10000)) g;
    COMMIT;
  END LOOP;
END $$;

-- Updates, all over the table, that leave the large value as it is.
CREATE PROCEDURE update_wide(base bigint, transactions int, size int) LANGUAGE plpgsql AS $$
BEGIN
  FOR t IN 0..transactions - 1 LOOP
    FOR i IN 0..size - 1 LOOP
      UPDATE wide SET n = n + 1 WHERE id = 1 + (t::bigint * size + i) * 7919 % base;
    END LOOP;
    COMMIT;
  END LOOP;
END $$;

-- The events table and its generators: deterministic rows from a bigint key.
CREATE TABLE events(
  id bigint PRIMARY KEY, user_id int NOT NULL, session_no int NOT NULL, qty int,
  amount numeric(12,2) NOT NULL, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
  name varchar(40) NOT NULL, city varchar(40), active bool NOT NULL);

CREATE FUNCTION ev(a bigint, b bigint) RETURNS SETOF events LANGUAGE sql AS $$
  SELECT g, (g * 7919 % 1000003)::int, (g * 31 % 100000)::int,
    CASE WHEN g % 10 = 0 THEN NULL ELSE (g % 500)::int END,
    ((g * 104729 % 100000000)::numeric / 100)::numeric(12,2),
    timestamptz '2025-01-01 00:00:00Z' + g * interval '0.731 s',
    timestamptz '2025-06-01 00:00:00Z' + g * interval '0.517 s',
    'customer-' || substr(md5((g % 200000)::text), 1, 21),
    'city-of-' || substr(md5((g % 5000)::text), 1, 22), g % 3 = 0
  FROM generate_series(a, b) g $$;

CREATE PROCEDURE insert_event(k bigint) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO events VALUES (k, (k * 7919 % 1000003)::int, (k * 31 % 100000)::int,
    (k % 500)::int, ((k * 104729 % 100000000)::numeric / 100)::numeric(12,2), now(), now(),
    'customer-' || substr(md5((k % 200000)::text), 1, 21),
    'city-of-' || substr(md5((k % 5000)::text), 1, 22), k % 3 = 0);
END $$;

-- n single-row inserts in transactions of `size`.
CREATE PROCEDURE insert_events(start bigint, n bigint, size int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 0..n - 1 LOOP
    CALL insert_event(start + i);
    IF (i + 1) % size = 0 THEN COMMIT; END IF;
  END LOOP;
  COMMIT;
END $$;

-- Per transaction 667 inserts, 266 updates over the base rows, 67 deletes of rows of this load.
CREATE PROCEDURE mix_events(start bigint, transactions int) LANGUAGE plpgsql AS $$
DECLARE k bigint := start; base bigint := (SELECT max(id) FROM events WHERE id < start);
BEGIN
  FOR t IN 0..transactions - 1 LOOP
    FOR i IN 0..666 LOOP
      CALL insert_event(k);
      k := k + 1;
    END LOOP;
    FOR i IN 0..265 LOOP
      UPDATE events SET qty = coalesce(qty, 0) + 1, updated_at = now(), amount = amount + 1
        WHERE id = 1 + ((t::bigint * 266 + i) * 7919 % (base - 1));
    END LOOP;
    FOR i IN 0..66 LOOP
      DELETE FROM events WHERE id = start + t * 667 + i * 3;
    END LOOP;
    COMMIT;
  END LOOP;
END $$;

-- Many small tables, many_0000 and so on.
CREATE PROCEDURE make_tables(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 0..n - 1 LOOP
    EXECUTE format('CREATE TABLE many_%s(id int PRIMARY KEY, v text, n int)', lpad(i::text, 4, '0'));
    EXECUTE format('INSERT INTO many_%s VALUES (-1, %L, 0)', lpad(i::text, 4, '0'), 'base');
    IF i % 100 = 99 THEN COMMIT; END IF;
  END LOOP;
  COMMIT;
END $$;

-- One source transaction: a row more and an updated row in each of `touched` tables from `first` on.
CREATE PROCEDURE change_some(total int, key int, first int, touched int) LANGUAGE plpgsql AS $$
DECLARE name text;
BEGIN
  FOR j IN 0..touched - 1 LOOP
    name := lpad(((first + j) % total)::text, 4, '0');
    EXECUTE format('INSERT INTO many_%s VALUES (%s, md5(%L), 0)', name, key, key);
    EXECUTE format('UPDATE many_%s SET n = n + 1 WHERE id = -1', name);
  END LOOP;
END $$;

-- `transactions` of these; each begins where the one before it ended.
CREATE PROCEDURE change_tables(total int, transactions int, touched int) LANGUAGE plpgsql AS $$
BEGIN
  FOR t IN 1..transactions LOOP
    CALL change_some(total, t, t * touched % total, touched);
    COMMIT;
  END LOOP;
END $$;

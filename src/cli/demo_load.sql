-- One step of the demo's live load: CALL shop.step(n) for n = 1, 2, 3, ... makes about 500 row
-- changes in about 40 transactions. It commits by itself, so call it outside a transaction.
CREATE PROCEDURE shop.place_order(n bigint) LANGUAGE plpgsql AS $$
DECLARE
  customer bigint;
  new_order bigint;
BEGIN
  SELECT id INTO customer FROM shop.customers WHERE id >= shop.pick(n, 'buyer',
    (SELECT max(id) FROM shop.customers WHERE id <= 1000000)) ORDER BY id LIMIT 1;
  INSERT INTO shop.orders (customer_id, ordered_at) VALUES (customer, clock_timestamp())
    RETURNING id INTO new_order;
  INSERT INTO shop.order_items
    SELECT new_order, row_number() OVER (), p.id, 1 + shop.pick(n + p.id, 'amount', 3), p.price
    FROM shop.products p WHERE p.active AND p.id % 97 = shop.pick(n, 'shelf', 97) LIMIT 4;
  INSERT INTO shop.inventory_movements (product_id, quantity, reason, moved_at)
    SELECT product_id, -quantity, 'sale', localtimestamp FROM shop.order_items
    WHERE order_id = new_order;
  UPDATE shop.orders SET total = (SELECT coalesce(sum(quantity * unit_price), 0)
    FROM shop.order_items WHERE order_id = new_order) WHERE id = new_order;
  INSERT INTO shop.customer_activity VALUES (md5('order' || new_order)::uuid, customer, 'order',
    '/orders/' || new_order, interval '3 minutes', '{"device": "phone"}', clock_timestamp());
END $$;

CREATE PROCEDURE shop.step(n bigint) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..25 LOOP
    CALL shop.place_order(n * 100 + i);
    COMMIT;
  END LOOP;
  -- Orders move on; the oldest open ones first.
  UPDATE shop.orders SET status = 'paid' WHERE id IN
    (SELECT id FROM shop.orders WHERE status = 'pending' ORDER BY id DESC LIMIT 40);
  COMMIT;
  UPDATE shop.orders SET status = 'shipped', shipped_at = greatest(ordered_at, clock_timestamp())
    WHERE id IN (SELECT id FROM shop.orders WHERE status IN ('paid', 'packed') ORDER BY id LIMIT 40);
  COMMIT;
  -- People: some join, some change, one leaves with all that belongs to them.
  INSERT INTO shop.customers
    SELECT (shop.make_customer(1000000 + n * 10 + i)).* FROM generate_series(1, 5) i
    ON CONFLICT DO NOTHING;
  COMMIT;
  UPDATE shop.customers SET preferences = preferences || jsonb_build_object('seen', n),
      tags = array_append(tags[1:3], 'step ' || n), updated_at = clock_timestamp()
    WHERE id % 199 = n % 199;
  COMMIT;
  DELETE FROM shop.customers WHERE id = (SELECT c.id FROM shop.customers c WHERE c.id > 1000000
    AND NOT EXISTS (SELECT FROM shop.orders o WHERE o.customer_id = c.id) ORDER BY c.id LIMIT 1);
  COMMIT;
  -- Cancelled orders are cleared away, items first by the cascade.
  DELETE FROM shop.orders WHERE id IN
    (SELECT id FROM shop.orders WHERE status = 'cancelled' ORDER BY id LIMIT 15);
  COMMIT;
  -- Prices move; a sale that is taken back leaves no trace.
  UPDATE shop.products SET price = round(price * 1.01 + 0.01, 2) WHERE id % 37 = n % 37;
  COMMIT;
  UPDATE shop.products SET price = 0;
  ROLLBACK;
  INSERT INTO shop.inventory_movements (product_id, quantity, reason, moved_at)
    SELECT id, 100, 'delivery', localtimestamp FROM shop.products WHERE id % 41 = n % 41;
  COMMIT;
END $$;

-- A small shop, so that there is something to follow. Runs once, when the volume is new.
CREATE SCHEMA shop;
CREATE TABLE shop.customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE shop.orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES shop.customers,
    total numeric(12, 2) NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO shop.customers (name) SELECT 'customer ' || n FROM generate_series(1, 100) n;
INSERT INTO shop.orders (customer_id, total)
    SELECT 1 + n % 100, (n % 10000) / 100.0 FROM generate_series(1, 1000) n;

package frazil;

import static org.junit.jupiter.api.Assertions.assertTrue;

import java.sql.DriverManager;
import org.junit.jupiter.api.Test;

class OrdersTest {
    @Test
    void ordersReachTheLake() throws Exception {
        try (var lake = new FrazilLake();
                var connection = DriverManager.getConnection(lake.postgres().getJdbcUrl(),
                    lake.postgres().getUsername(), lake.postgres().getPassword());
                var postgres = connection.createStatement()) {
            postgres.execute("CREATE TABLE orders (id int PRIMARY KEY, total numeric(12,2) NOT NULL)");
            postgres.execute("INSERT INTO orders SELECT n, n FROM generate_series(1, 1000) n");
            lake.waitNow();
            assertRows(lake, 1000);

            postgres.execute("DELETE FROM orders WHERE id > 900");
            lake.waitNow();
            assertRows(lake, 900);
        }
    }

    private static void assertRows(FrazilLake lake, int rows) throws Exception {
        // Compared as text: a JSON library would be one more dependency for one number.
        var status = lake.call("status", "--exact", "--output", "json").replaceAll("\\s", "");
        assertTrue(status.contains("\"rows\":" + rows + ","), status);
    }
}

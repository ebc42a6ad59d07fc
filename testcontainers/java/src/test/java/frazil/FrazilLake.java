package frazil;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.testcontainers.containers.BindMode;
import org.testcontainers.containers.GenericContainer;
import org.testcontainers.containers.Network;
import org.testcontainers.postgresql.PostgreSQLContainer;
import org.testcontainers.utility.DockerImageName;

/** Postgres and frazil in containers, for tests that write to Postgres and read the lake. */
final class FrazilLake implements AutoCloseable {
    private final Network network = Network.newNetwork();
    private final PostgreSQLContainer postgres;
    private final Path folder;
    private GenericContainer<?> frazil;

    /** Starts Postgres. frazil is started by the first {@link #waitNow}. */
    FrazilLake() throws IOException {
        var image = System.getenv().getOrDefault("POSTGRES_IMAGE", "postgres:17");
        postgres = new PostgreSQLContainer(DockerImageName.parse(image).asCompatibleSubstituteFor("postgres"))
            .withCommand("postgres", "-c", "wal_level=logical", "-c", "fsync=off")
            .withNetwork(network)
            .withNetworkAliases("postgres");
        postgres.start();
        folder = Files.createTempDirectory("frazil-lake-");
    }

    /** Where this machine reaches Postgres. */
    PostgreSQLContainer postgres() {
        return postgres;
    }

    /** The lake: Iceberg tables, and catalog.db, an Iceberg SQL catalog named frazil. */
    Path folder() {
        return folder;
    }

    /** Returns once the lake holds all that is committed in Postgres now. */
    void waitNow() throws IOException, InterruptedException {
        call("wait", "--now");
    }

    /** Calls a verb of frazil in its container; gives what it printed. */
    String call(String... arguments) throws IOException, InterruptedException {
        follow();
        var command = new ArrayList<>(List.of("/usr/bin/frazil"));
        command.addAll(List.of(arguments));
        var result = frazil.execInContainer(command.toArray(String[]::new));
        if (result.getExitCode() != 0) {
            throw new IllegalStateException(result.getStderr() + "\n" + frazil.getLogs());
        }
        return result.getStdout();
    }

    /** Starts frazil, once: it copies the tables there are and follows them. */
    void follow() throws IOException {
        if (frazil != null) {
            return;
        }
        // The server has no certificate, and only its own network.
        var url = "postgres://%s:%s@postgres:5432/%s?sslmode=disable".formatted(
            postgres.getUsername(), postgres.getPassword(), postgres.getDatabaseName());
        // The same path on both sides, so that the locations in the lake's metadata are right on both, and
        // the user of this process, who can read and delete what frazil writes.
        var user = Files.getAttribute(folder, "unix:uid") + ":" + Files.getAttribute(folder, "unix:gid");
        frazil = new GenericContainer<>(System.getenv().getOrDefault("FRAZIL_IMAGE", "frazil:latest"))
            .withCommand("run")
            .withEnv("FRAZIL_SOURCE__URL", url)
            .withEnv("FRAZIL_LAKE__INTO", folder.toString())
            .withEnv("FRAZIL_COMMIT__INTERVAL", "100ms")
            .withFileSystemBind(folder.toString(), folder.toString(), BindMode.READ_WRITE)
            .withCreateContainerCmdModifier(create -> create.withUser(user))
            .withNetwork(network);
        frazil.start();
    }

    @Override
    public void close() throws IOException {
        if (frazil != null) {
            frazil.stop();
        }
        postgres.stop();
        network.close();
        try (var files = Files.walk(folder)) {
            files.sorted(Comparator.reverseOrder()).forEach(FrazilLake::delete);
        }
    }

    private static void delete(Path path) {
        try {
            Files.delete(path);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}

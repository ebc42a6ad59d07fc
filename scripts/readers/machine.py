"""What the matrix runs on: free ports, servers that end with the script, programs from the caches."""

import atexit
import contextlib
import glob
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = pathlib.Path(os.environ.get("FRAZIL_CACHE", pathlib.Path.home() / ".cache/frazil"))
READERS_CACHE = CACHE / "readers"
START_SECONDS = 300
STOP_SECONDS = 30


class Failure(Exception):
    """What ends the script with a sentence and no traceback."""


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(*command, **options):
    """The output of a program that must succeed; its stderr is shown where it does not."""
    ended = subprocess.run(command, capture_output=True, text=True, **options)
    if ended.returncode != 0:
        shown = "\n".join((ended.stdout + ended.stderr).splitlines()[-40:])
        raise Failure(f"{' '.join(map(str, command))[:300]}: exit {ended.returncode}\n{shown}")
    return ended.stdout


class Server:
    """A server process with a log of its own; it ends with the script, however that ends."""

    def __init__(self, name, command, log, is_up, env=None, cwd=None):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd
            )
        atexit.register(self.stop)
        began = time.monotonic()
        while not is_up():
            if self.process.poll() is not None:
                raise Failure(f"{name} ended by itself:\n{self.tail()}")
            if time.monotonic() - began > START_SECONDS:
                self.stop()
                raise Failure(f"{name} did not start in {START_SECONDS} s:\n{self.tail()}")
            time.sleep(0.2)
        say(f"{name} is up ({time.monotonic() - began:.0f} s)")

    def tail(self):
        return "\n".join(pathlib.Path(self.log).read_text(errors="replace").splitlines()[-30:])

    def stop(self, with_signal=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def dies_with_us(*command, user=None):
    """`command` as a child that the kernel ends if this script is killed."""
    change = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    return ["setpriv", *change, "--pdeathsig", "TERM", "--", *map(str, command)]


def answers(url):
    """Whether an HTTP server answers there with success."""
    try:
        with urllib.request.urlopen(url, timeout=3) as response:
            return response.status == 200
    except (OSError, urllib.error.URLError):
        return False


def script(name, *arguments):
    """The last line that a script of this repository prints: the path of what it fetched."""
    return run(str(ROOT / "scripts" / name), *arguments).strip().splitlines()[-1]


@contextlib.contextmanager
def making(target):
    """A path to make something under; what stands at `target` is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def artifact(coordinates):
    """A file of a Maven artifact, `group:name:version[:packaging]`, fetched once."""
    group, name, version, packaging = (coordinates.split(":") + ["jar"])[:4]
    repository = READERS_CACHE / "m2"
    folder = repository / group.replace(".", "/") / name / version
    file = folder / f"{name}-{version}.{packaging}"
    if not file.exists():
        if not shutil.which("mvn"):
            raise Failure(f"no mvn in PATH to fetch {coordinates} (Debian: maven)")
        say(f"fetching {coordinates} (once)")
        plugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:get"
        where = f"-Dmaven.repo.local={repository}"
        run("mvn", "-q", "-B", where, plugin, f"-Dartifact={coordinates}", "-Dtransitive=false")
    return file


def python_with(*packages):
    """The Python of an environment that has exactly these packages, made once."""
    name = packages[0].split("==")[0].split("[")[0]
    folder, wanted = READERS_CACHE / f"venv-{name}", "\n".join(packages)
    mark = folder / "frazil"
    if not mark.exists() or mark.read_text() != wanted:
        say(f"a Python environment with {', '.join(packages)} (once)")
        folder.parent.mkdir(parents=True, exist_ok=True)
        run(sys.executable, "-m", "venv", "--clear", str(folder))
        run(str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", *packages)
        mark.write_text(wanted)
    return folder / "bin/python"


def java(oldest, newest):
    """The home of a Java of these versions."""
    named = os.environ.get("JAVA_HOME")
    in_path = shutil.which("java")
    homes = [named] if named else []
    homes += [str(pathlib.Path(in_path).resolve().parents[1])] if in_path else []
    homes += sorted(glob.glob("/usr/lib/jvm/*"), reverse=True)
    for home in homes:
        program = pathlib.Path(home) / "bin/java"
        if program.exists() and oldest <= java_version(program) <= newest:
            return pathlib.Path(home)
    wanted = f"{oldest} to {newest}" if newest < 99 else f"{oldest} or newer"
    raise Failure(f"no Java {wanted} in JAVA_HOME, PATH or /usr/lib/jvm")


def java_version(program):
    shown = subprocess.run([program, "-version"], capture_output=True, text=True).stderr
    number = shown.partition('version "')[2].partition('"')[0].split(".")[0]
    return int(number) if number.isdigit() else 0

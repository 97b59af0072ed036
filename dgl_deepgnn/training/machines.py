"""Starting a training on several machines, and ending it everywhere when it ends anywhere."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training.part import GRAPH, check_part, read_partition, serve
from dgl_deepgnn.training.processes import LostError
from dgl_deepgnn.wording import counted, quoted

__all__ = ["launch", "read_ip_config", "run_machine", "take_role"]

PORT = 30050
"""Of a graph server, if the file does not say; the trainers meet at the next one."""
PASSED_ON = re.compile(r"(DGL|OMP_|MKL_|GLOO_|NCCL_|PYTHON)[A-Z_]*")
"""Variables that the other machines get as they are here."""
FOLLOWS = "DGL_DEEPGNN_FOLLOWS_INPUT"
"""Set where a machine's processes are to end with the input they were started with."""
PATIENCE = 5.0
"""Seconds in which processes may end by themselves, once others have ended."""
PR_SET_PDEATHSIG = 1
SHARED_MEMORY = Path("/dev/shm")


def take_role(
    recipe: Recipe, partition: Path, ip_config: Path, way: str | None, machine: int | None
) -> bool:
    """Do what this process is there for; whether that is to train.

    It may have been started by a user, for one machine, or there as graph server or trainer.

    Raises
    ------
    UserError
        If the partition, the addresses and the recipe do not fit, or a machine fails.
    """
    facts = read_partition(partition, recipe)
    machines = read_ip_config(ip_config)
    if len(machines) != facts.machines:
        raise UserError(
            f"{partition} was made for {counted(facts.machines, 'machine')}, --ip-config "
            f"{ip_config} names {len(machines)}."
        )
    role = os.environ.get("DGL_ROLE")
    if role == "client":
        return True
    if role == "server":
        serve()
    command = [sys.executable, "-m", "dgl_deepgnn", *sys.argv[1:]]
    if machine is None:
        launch(command, machines, way)
        return False
    if not 0 <= machine < len(machines):
        raise UserError(f"--machine {machine}: they are numbered 0 to {len(machines) - 1}.")
    sys.exit(run_machine(command, machine, machines, partition))


def read_ip_config(path: Path) -> list[tuple[str, int]]:
    """Addresses and ports of the machines: one line each, and comments behind #.

    Raises
    ------
    UserError
        If it is not such a file.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--ip-config {path} cannot be read: {error}.") from None
    machines = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        address, port = words[0], words[1] if len(words) > 1 else str(PORT)
        try:
            socket.inet_pton(socket.AF_INET, address)
            if len(words) > 2 or not 0 < int(port) < 2**16 - 1:
                raise ValueError
        except (OSError, ValueError):
            raise UserError(
                f"--ip-config {path}, line {number}: {' '.join(words)[:100]!r} is not the IPv4 "
                f"address of a machine, with a port behind it or without ({PORT})."
            ) from None
        machines.append((address, int(port)))
    if not machines:
        raise UserError(f"--ip-config {path} is empty: one line for every machine, its address.")
    if len({address for address, _ in machines}) < len(machines):
        raise UserError(f"--ip-config {path} names a machine twice: each holds one part.")
    return machines


def launch(command: Sequence[str], machines: Sequence[tuple[str, int]], way: str | None) -> None:
    """Run a command on every machine, and stop it on all as soon as it fails on one.

    Parameters
    ----------
    command : sequence of str
        What to run; ``--machine NUMBER`` is added.
    machines : sequence of (str, int)
        Their addresses, and ports.
    way : str, optional
        How to run a command line there, with ``{host}`` for the address; the command line follows
        as one word. By default ``ssh {host}``, and directly where the address is this machine's.

    Raises
    ------
    UserError
        If it fails on one of them.
    """
    try:
        template = None if way is None else shlex.split(way)
    except ValueError as error:
        raise UserError(f"--launch {quoted(way)}: {error}.") from None
    if template == []:
        raise UserError(f"--launch {quoted(way)} is no command; such as 'ssh {{host}}'.")
    started = []
    for number, (address, _) in enumerate(machines):
        line = _line([*command, "--machine", str(number)])
        if template is None:
            words = ["sh", "-c"] if _is_here(address) else ["ssh", address]
        else:
            words = [word.replace("{host}", address) for word in template]
        try:
            started.append(subprocess.Popen([*words, line], stdin=subprocess.PIPE))
        except OSError as error:
            _end(started)
            raise UserError(f"{words[0]} cannot be run: {error.strerror}.") from None
    try:
        failed = _first_failure(started)
        if failed is not None:
            failed = _cause(started, failed)
    finally:
        _end(started)
    if failed is not None:
        code = started[failed].returncode
        # Wrong input has been explained, and resuming does not mend it.
        kept = " Every finished epoch is kept: --resume with the run folder goes on from there."
        raise UserError(
            f"Machine {failed} ({machines[failed][0]}) has ended ({_how(code)}), so all were "
            f"stopped.{'' if code == UserError.exit_code else kept}"
        )


def run_machine(
    command: Sequence[str], number: int, machines: Sequence[tuple[str, int]], folder: Path
) -> int:
    """Run the graph server and the trainer of this machine, until both have ended or one fails.

    Returns
    -------
    int
        Exit code of what failed, 0 if nothing did.

    Raises
    ------
    UserError
        If another such training runs here, a port is taken, or the part is damaged.
    """
    check_part(folder, number)
    with _alone(), _addresses(machines) as file:
        _check_port(*machines[number])
        if number == 0:
            _check_port(*_meeting_point(machines))
        return _run_both(command, number, machines, _roles(number, machines, folder, file))


def _run_both(
    command: Sequence[str],
    number: int,
    machines: Sequence[tuple[str, int]],
    roles: tuple[dict[str, str], dict[str, str]],
) -> int:
    """Start server and trainer, wait for them, and end what is left."""
    ended = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(sign, lambda *_: ended.set())
    if FOLLOWS in os.environ:
        threading.Thread(target=_follow_input, args=(ended,), daemon=True).start()
    # What the server says, of its state and its end, is of interest if it fails.
    with tempfile.TemporaryFile() as said:
        started = [
            subprocess.Popen(
                command,
                env={**os.environ, **role},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the launcher, which ends them in order
                preexec_fn=_end_with_parent,
            )
            for role, output in zip(roles, (said, None), strict=True)
        ]
        failed = _first_failure(started, ended)
        code = 0 if failed is None else started[failed].returncode
        if started[1].poll() is None:
            started[1].kill()  # whose files are whole at every moment, and who has nothing to say
        _end(started)
        if started[0].returncode == -signal.SIGKILL:
            _free_memory()
        if failed == 0:
            said.seek(0)
            sys.stderr.write(said.read().decode("utf-8", "replace")[-2000:])
    if failed == 0 or code < 0:  # a trainer that stops by itself has said why
        who = "trainer" if failed else "graph server"
        print(
            f"The {who} of machine {number} ({machines[number][0]}) has ended ({_how(code)}).",
            file=sys.stderr,
        )
    if ended.is_set():
        return 128 + signal.SIGTERM
    return code if code >= 0 else 128 - code


def _roles(
    number: int, machines: Sequence[tuple[str, int]], folder: Path, addresses: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Environment of a machine's graph server, and of its trainer, as DGL and PyTorch read it."""
    address, port = _meeting_point(machines)
    common = {
        "DGL_IP_CONFIG": addresses,
        "DGL_DIST_MODE": "distributed",
        "DGL_NUM_SERVER": "1",
        "DGL_NUM_CLIENT": str(len(machines)),
        "DGL_NUM_SAMPLER": "0",
        "DGL_CONF_PATH": str(folder / f"{GRAPH}.json"),
        "DGL_GRAPH_FORMAT": "coo,csc",
    }
    server = {**common, "DGL_ROLE": "server", "DGL_SERVER_ID": str(number)}
    trainer = {
        **common,
        "DGL_ROLE": "client",
        "TORCHELASTIC_RUN_ID": "distributed",  # as torchrun says it to its processes
        "RANK": str(number),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(len(machines)),
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
    }
    interface = _interface(machines[number][0])
    if interface is not None:  # else gloo takes what this machine's name stands for
        trainer["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", interface)
    return server, trainer


def _meeting_point(machines: Sequence[tuple[str, int]]) -> tuple[str, int]:
    """Where the trainers meet: behind the port of the first machine's graph server."""
    address, port = machines[0]
    return address, port + 1


@contextmanager
def _alone() -> Iterator[None]:
    """Keep out other trainings: DGL's names in shared memory are the same for all its jobs."""
    path = SHARED_MEMORY / f"dgl-deepgnn-{os.getuid()}.lock"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which ends with this process
        except OSError:
            raise UserError(
                "Another training of several machines runs on this one, and DGL's graph servers "
                "would overwrite each other's graphs in shared memory: wait for it to end."
            ) from None
        yield


@contextmanager
def _addresses(machines: Sequence[tuple[str, int]]) -> Iterator[str]:
    """File of the addresses as DGL reads it, which knows neither comments nor empty lines."""
    with tempfile.NamedTemporaryFile("w", prefix="dgl-deepgnn-", suffix=".txt") as file:
        file.write("".join(f"{address} {port}\n" for address, port in machines))
        file.flush()
        yield file.name


def _check_port(address: str, port: int) -> None:
    with socket.socket() as some:
        some.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            some.bind((address, port))
        except OSError as error:
            raise UserError(
                f"{address}:{port} cannot be listened on ({error.strerror}). Give another port in "
                "the second column of --ip-config."
            ) from None


def _first_failure(
    started: Sequence[subprocess.Popen[bytes]], ended: threading.Event | None = None
) -> int | None:
    """Wait until one has failed, and say which, or all have ended well, or others have."""

    def failures() -> list[int]:
        return [index for index, some in enumerate(started) if some.poll() not in (None, 0)]

    while ended is None or not ended.is_set():
        if failures():
            return failures()[0]  # looked at anew: the first may have pulled the second along
        if all(some.returncode == 0 for some in started):
            return None
        time.sleep(0.1)
    return None


def _cause(started: Sequence[subprocess.Popen[bytes]], failed: int) -> int:
    """Which has failed by itself: one that misses another may be the first to end."""
    limit = time.monotonic() + PATIENCE
    while started[failed].returncode == LostError.exit_code and time.monotonic() < limit:
        for index, process in enumerate(started):
            if process.poll() not in (None, 0, LostError.exit_code):
                return index
        time.sleep(0.05)
    return failed


def _end(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """End what still runs: kindly, then not."""
    for process in started:
        if process.stdin is not None:
            process.stdin.close()
    if any(process.poll() is None for process in started) and started[0].stdin is not None:
        _wait(started, 2 * PATIENCE)
    for process in started:
        if process.poll() is None:
            process.terminate()
    _wait(started, PATIENCE)
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def _wait(started: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit and any(process.poll() is None for process in started):
        time.sleep(0.05)


def _follow_input(ended: threading.Event) -> None:
    """End with the input: so those on other machines end when the launcher, or ssh, does."""
    while os.read(0, 4096):
        pass
    ended.set()


def _free_memory() -> None:
    """Remove what a killed graph server leaves in shared memory: as much as its part of the graph.

    DGL's names are the same for all its jobs, of which a machine can thus have one at a time.
    """
    for pattern in (f"{GRAPH}*", "node~_N~*-kvdata-", "edge~_N:_E:_N~*-kvdata-"):
        for path in SHARED_MEMORY.glob(pattern):
            with suppress(OSError):
                path.unlink()


def _end_with_parent() -> None:
    """Have the system end a process when the one that started it ends, however it does."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _line(command: Sequence[str]) -> str:
    """Command line that runs a command in this folder, with this environment."""
    variables = {name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}
    variables[FOLLOWS] = "1"
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    return f"cd {shlex.quote(os.getcwd())} && exec env {settings} {shlex.join(command)}"


def _how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _is_here(address: str) -> bool:
    return address.startswith("127.") or _interface(address) is not None


def _interface(address: str) -> str | None:
    """Name of this machine's network interface with that address."""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as some:
            try:
                request = name.encode()[:15].ljust(256, b"\0")
                found = fcntl.ioctl(some.fileno(), 0x8915, request)  # SIOCGIFADDR
            except OSError:  # it has none
                continue
        if socket.inet_ntoa(found[20:24]) == address:
            return name
    return None

"""Several machines, real servers and trainers: network namespaces, each with its own /dev/shm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from filelock import FileLock

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training import RunFolder, sampling, train
from dgl_deepgnn.training.machines import (
    SHARED_MEMORY,
    _alone,
    launch,
    read_ip_config,
    run_machine,
)
from dgl_deepgnn.training.part import check_part
from dgl_deepgnn.training.partition import partition

dgl = pytest.importorskip("dgl")

CLUSTERS = 8
COMMAND = [sys.executable, "-m", "dgl_deepgnn"]


def recipe(**sections: Any) -> Recipe:
    batching = {"kind": "clusters", "parts": CLUSTERS, "size": CLUSTERS, "memory": "1MB"}
    return Recipe.model_validate(
        {
            "name": "machines",
            "data": {"name": "csbm", "options": {"num_nodes": 300}},
            "model": {
                "num_layers": 5,
                "hidden_feats": 8,
                "residual": "initial",
                "t": 0.7,
                **sections.pop("model", {}),
            },
            "optimizer": {"lr": 0.01},
            "training": {"epochs": 3, "batching": batching, **sections.pop("training", {})},
            **sections,
        }
    )


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[list[str], str]]:
    """Addresses of two machines, and how to run a command line on each."""
    addresses = ["10.213.71.1", "10.213.71.2"]
    names = [f"deepgnn-{os.getpid()}-{address}" for address in addresses]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "one", "netns", names[0], "type", "veth", "peer", "name", "two",
            "netns", names[1])  # fmt: skip
        for name, link, address in zip(names, ("one", "two"), addresses, strict=True):
            run("ip", "-n", name, "address", "add", f"{address}/24", "dev", link)
            run("ip", "-n", name, "link", "set", link, "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "netns", "exec", name, "unshare", "-m", "mount", "-t", "tmpfs", "tmpfs",
                "/dev/shm")  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        _remove(names)
        pytest.skip("this machine lets nobody make network namespaces (ip netns, unshare)")
    private = 'mount -t tmpfs tmpfs /dev/shm && exec sh -c "$1"'
    way = f"ip netns exec deepgnn-{os.getpid()}-{{host}} unshare -m sh -c '{private}' sh"
    yield addresses, way
    _remove(names)


def _remove(names: list[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=20)


@pytest.fixture
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This machine and its shared memory for one test at a time, of all that run at once."""
    with FileLock(tmp_path_factory.getbasetemp().parent / "machines.lock"):
        yield


@pytest.fixture
def start(background: Any) -> Any:
    """Function that starts ``train --distributed`` in the background."""
    return lambda *arguments: background(*COMMAND, "train", "--distributed", *arguments)


def prepare(folder: Path, some: Recipe, addresses: list[str]) -> list[object]:
    """Write recipe, partition and addresses; the arguments that name them."""
    (folder / "recipe.yaml").write_text(some.to_yaml())
    (folder / "ip.txt").write_text("".join(f"{address} 31050\n" for address in addresses))
    partition(some, len(addresses), folder / "partition")
    return ["--partition", "partition", "--ip-config", "ip.txt"]


def in_one_process(folder: Path, some: Recipe, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """The same training on the same clusters."""
    config = folder / "partition" / "deepgnn.json"
    machines = len(json.loads(config.read_text())["node_map"]["_N"])
    assignment = torch.full((300,), -1)
    for index in range(machines):
        nodes = dgl.distributed.load_partition(str(config), index)[1]
        first = index * CLUSTERS // machines
        assignment[nodes["_N/orig_id"]] = first + nodes["_N/cluster"]
    monkeypatch.setattr(sampling, "_partition", lambda *_: assignment)
    return train(some, folder / "one", progress=False)


def check_alike(found: RunFolder, expected: RunFolder) -> None:
    """Losses and scores of every epoch, up to the order of sums."""
    assert found.facts["fingerprint"] == expected.facts["fingerprint"]
    for ours, theirs in zip(found.metrics(0), expected.metrics(0), strict=True):
        assert ours["step_losses"] == pytest.approx(theirs["step_losses"], rel=1e-3)
        for part in ("train", "val", "test"):
            assert ours[part]["loss"] == pytest.approx(theirs[part]["loss"], rel=1e-3)
            assert ours[part]["accuracy"] == pytest.approx(theirs[part]["accuracy"], abs=0.02)
    ours, theirs = (folder.load("model.safetensors")[0] for folder in (found, expected))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-2, atol=1e-2)


def test_two_machines_train_as_one_process(
    tmp_path: Path, two: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses, way = two
    some = recipe()
    arguments = prepare(tmp_path, some, addresses)
    job = start("recipe.yaml", *arguments, "--launch", way, "--output", "run")
    out, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    assert out.splitlines()[0].startswith("machines: test accuracy")
    assert len(out.splitlines()) == 2, "DGL's words are not ours"
    expected = in_one_process(tmp_path, some, monkeypatch)
    check_alike(RunFolder.open(tmp_path / "run"), expected)


def test_what_dies_ends_the_job_which_goes_on_to_the_same_bits(
    tmp_path: Path, two: Any, start: Any
) -> None:
    addresses, way = two
    batching = {"kind": "clusters", "parts": CLUSTERS, "size": 4}
    some = recipe(
        model={"dropout": 0.2}, training={"epochs": 120, "evaluate_every": 30, "batching": batching}
    )
    arguments = [*prepare(tmp_path, some, addresses), "--launch", way, "--quiet"]
    whole = start("recipe.yaml", *arguments, "--output", "whole")
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err

    job = start("recipe.yaml", *arguments, "--output", "killed")
    log = tmp_path / "killed" / "seed-0" / "metrics.jsonl"
    deaths = [
        ("client", 1, 20, "trainer of machine 1"),
        ("server", 0, 60, "graph server of machine 0"),
    ]
    for role, machine, epochs, who in deaths:
        limit = time.monotonic() + 200
        while not log.exists() or log.read_text().count("\n") < epochs:
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < limit, "no progress"
            time.sleep(0.01)
        victims = [
            child
            for child in psutil.Process(job.pid).children(recursive=True)
            if child.environ().get("DGL_ROLE") == role
            and str(machine) in (child.environ().get("RANK"), child.environ().get("DGL_SERVER_ID"))
        ]
        others = psutil.Process(job.pid).children(recursive=True)
        assert len(victims) == 1
        victims[0].send_signal(signal.SIGKILL)
        _, err = job.communicate(timeout=60)
        assert job.returncode == 2
        assert f"The {who} ({addresses[machine]}) has ended (signal SIGKILL)." in err, err
        assert "so all were stopped. Every finished epoch is kept" in err, err
        assert not list(SHARED_MEMORY.glob("node~*")), "a part of the graph is left in memory"
        assert "Traceback" not in err, err
        assert not psutil.wait_procs(others, timeout=10)[1], "a process is left"
        job = start("--resume", "killed", *arguments)
    _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    found, expected = (
        RunFolder.open(tmp_path / name).load("model.safetensors")[0] for name in ("killed", "whole")
    )
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_one_machine_by_loopback(
    tmp_path: Path, here: None, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no namespaces can be made, the whole way through a real server."""
    some = recipe()
    arguments = prepare(tmp_path, some, ["127.0.0.1"])
    job = start("recipe.yaml", *arguments, "--output", "run")
    _, err = job.communicate(timeout=300)
    assert job.returncode == 0, err
    check_alike(RunFolder.open(tmp_path / "run"), in_one_process(tmp_path, some, monkeypatch))


# --- the launcher ---


def test_a_command_runs_in_this_folder_with_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1; false")
    code = (
        "import os, sys; open(f'seen-{sys.argv[-1]}', 'w').write("
        "repr([sys.argv[1:], os.environ['OMP_NUM_THREADS']]))"
    )
    command = [sys.executable, "-c", code, "a b", "$HOME", "'"]
    launch(command, [("10.0.0.1", 1), ("10.0.0.2", 1)], "env HOST={host} sh -c")
    for machine in "01":
        seen = (tmp_path / f"seen-{machine}").read_text()
        assert seen == repr([["a b", "$HOME", "'", "--machine", machine], "1; false"])


def test_a_port_that_is_taken_is_named(tmp_path: Path, here: None) -> None:
    prepare(tmp_path, recipe(), ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        machines = [("127.0.0.1", taken.getsockname()[1])]
        with pytest.raises(UserError, match=r"127\.0\.0\.1:\d+ cannot be listened on"):
            run_machine(["true"], 0, machines, tmp_path / "partition")


def test_two_trainings_on_one_machine_are_kept_apart(tmp_path: Path, here: None) -> None:
    prepare(tmp_path, recipe(), ["127.0.0.1"])
    with _alone(), pytest.raises(UserError, match="Another training of several machines runs"):
        run_machine(["true"], 0, [("127.0.0.1", 31060)], tmp_path / "partition")
    with _alone():  # it ends with the process, or the block
        pass


def test_a_damaged_part_is_named_by_the_machine_that_reads_it(tmp_path: Path) -> None:
    prepare(tmp_path, recipe(), ["127.0.0.1", "127.0.0.2"])
    file = tmp_path / "partition" / "part1" / "node_feat.dgl"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    check_part(tmp_path / "partition", 0)
    with pytest.raises(UserError, match=r"part1/node_feat\.dgl is damaged: its SHA-256"):
        check_part(tmp_path / "partition", 1)
    file.unlink()
    with pytest.raises(UserError, match=r"part1/node_feat\.dgl cannot be read: No such file"):
        check_part(tmp_path / "partition", 1)


def test_a_divergence_is_reported_once(tmp_path: Path, here: None, start: Any) -> None:
    some = recipe(
        model={"init": "glorot", "residual": None, "t": 1.0},
        optimizer={"name": "sgd", "lr": 1e30},
        training={"epochs": 5},
    )
    job = start("recipe.yaml", *prepare(tmp_path, some, ["127.0.0.1"]), "--output", "run")
    _, err = job.communicate(timeout=300)
    assert job.returncode == 2
    assert err.count("Try a learning rate below 1e+30") == 1
    assert "Machine 0 (127.0.0.1) has ended (exit code 2), so all were stopped.\n" in err


def test_the_cause_is_named_though_another_ends_first(tmp_path: Path) -> None:
    """Machine 0 misses the other one, and ends before it is known how that ended."""
    code = "import sys, time\nif sys.argv[-1] == '0': sys.exit(3)\ntime.sleep(1); sys.exit(137)"
    with pytest.raises(UserError, match=r"Machine 1 .*\(exit code 137\).* Every finished epoch"):
        launch([sys.executable, "-c", code], [("10.0.0.1", 1), ("10.0.0.2", 1)], "sh -c")


def test_the_first_failure_stops_the_others(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "if sys.argv[-1] == '1': sys.exit(7)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "sys.stdin.read()\n"
    )
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"Machine 1 \(10\.0\.0\.2\) has ended \(exit code 7\)"):
        launch([sys.executable, "-c", code], [("10.0.0.1", 1), ("10.0.0.2", 1)], "sh -c")
    assert time.monotonic() - begin < 30
    assert not (tmp_path / "pid").exists() or not psutil.pid_exists(
        int((tmp_path / "pid").read_text())
    )


@pytest.mark.parametrize(
    "way, message",
    [
        ("", "is no command"),
        ("no-such-command", "cannot be run"),
        ("sh -c 'abc", "No closing quotation"),
    ],
)
def test_a_way_that_leads_nowhere(way: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        launch(["true"], [("10.0.0.1", 1)], way)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty: one line for every machine"),
        ("10.0.0.1\nlocalhost\n", "line 2: 'localhost' is not the IPv4 address"),
        ("10.0.0.1 70000", "line 1: '10.0.0.1 70000' is not"),
        ("10.0.0.1 30050 2", "line 1: '10.0.0.1 30050 2' is not"),
        ("10.0.0.1\n10.0.0.1 30051\n", "names a machine twice"),
        ("\udcff", "cannot be read"),
    ],
)
def test_addresses_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "ip.txt"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        read_ip_config(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_ip_config(tmp_path / "none.txt")


def test_addresses_with_ports_and_without(tmp_path: Path) -> None:
    (tmp_path / "ip.txt").write_bytes(b"# hosts\r\n10.0.0.1\r\n\r\n10.0.0.2 4000 # two\r\n")
    assert read_ip_config(tmp_path / "ip.txt") == [("10.0.0.1", 30050), ("10.0.0.2", 4000)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--distributed"], "needs --partition"),
        (["--partition", "partition"], "need --distributed"),
        (["--machine", "0"], "need --distributed"),
        (
            ["--distributed", "--partition", "partition", "--ip-config", "one.txt"],
            "was made for 2 machines, --ip-config one.txt names 1",
        ),
        (
            [
                "--distributed",
                "--partition",
                "partition",
                "--ip-config",
                "ip.txt",
                "--machine",
                "2",
            ],
            "--machine 2: they are numbered 0 to 1",
        ),
        (
            ["--distributed", "--partition", ".", "--ip-config", "ip.txt"],
            "is not a partition",
        ),
    ],
)
def test_what_the_command_line_refuses(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    from dgl_deepgnn.cli import run as run_cli

    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, recipe(), ["10.213.71.1", "10.213.71.2"])
    (tmp_path / "one.txt").write_text("10.213.71.1")
    monkeypatch.setattr(sys, "argv", ["dgl-deepgnn", "train", "recipe.yaml", *arguments])
    with pytest.raises(SystemExit) as end:
        run_cli()
    assert end.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    shutil.rmtree(tmp_path / "partition")

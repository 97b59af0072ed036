"""What is released, built and tried as a user has it: ``python -m tests.wheel WHEEL``.

The wheel is installed into an environment of its own, away from the checkout; what it depends on is
borrowed from this environment, which has it already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 40_000_000
"""Bytes of the wheel."""
OUTSIDE = ("tests/", "benchmarks/", "docs/")


def check_content(wheel: Path) -> None:
    """Hold the files of a wheel to those of the checkout."""
    size = wheel.stat().st_size
    assert size < MOST, f"{wheel.name} has {size:,} bytes, more than {MOST:,}"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert not [name for name in names if name.startswith(OUTSIDE)]
    listed = subprocess.run(
        ["git", "ls-files", "dgl_deepgnn", "recipes", "zoo"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    for file in listed:
        inside = file if file.startswith("dgl_deepgnn/") else f"dgl_deepgnn/{file}"
        assert inside in names, f"{wheel.name} lacks {file}"
    print(f"{wheel.name}: {size / 1e6:.1f} MB, all {len(listed)} files")


def check_use(wheel: Path) -> None:
    """Install it, and do with it what README begins with."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        venv.create(home / "venv", with_pip=True)
        programs = home / "venv" / "bin"
        # Site packages of a path are importable, but their .pth files, which lead to the checkout,
        # are not read.
        borrowed = sysconfig.get_paths()["purelib"]
        environment = {
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "DGL_DEEPGNN_CACHE": str(home / "cache"),
        }

        def run(*command: str, borrow: bool = True) -> str:
            print("+", " ".join(command), flush=True)
            done = subprocess.run(
                [str(programs / command[0]), *command[1:]],
                cwd=home,
                env={**environment, **({"PYTHONPATH": borrowed} if borrow else {})},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        run("pip", "install", "--quiet", "--no-deps", str(wheel.resolve()), borrow=False)
        found = run("python", "-c", "import dgl_deepgnn; print(dgl_deepgnn.__file__)")
        assert Path(found.strip()).is_relative_to(home), found
        assert run("dgl-deepgnn", "--version").split()[1] in wheel.name
        assert "resgcn64.digits" in run("dgl-deepgnn", "recipes", "list")
        once = ("--epochs", "1", "--seeds", "0", "--num-layers", "4", "--output", "run", "--json")
        assert json.loads(run("dgl-deepgnn", "train", "resgcn64.digits", *once))["seeds"]
        assert "agrees" in run("dgl-deepgnn", "evaluate", "resgcn64.digits")
        run("dgl-deepgnn", "models", "--html", "site")
        assert (home / "site" / "index.html").is_file()


def main() -> None:
    """Check the wheel that is named."""
    (wheel,) = map(Path, sys.argv[1:])
    check_content(wheel)
    check_use(wheel)
    print("The wheel works.")


if __name__ == "__main__":
    main()

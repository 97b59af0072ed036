"""The packages of the gate, held to hashes: ``python -m tests.hashes`` writes ``hashes.txt``.

It lists the SHA-256 of what pip installs here of every pinned package in ``constraints.txt``.
``make hashes`` downloads the same once more, and fails where a file is another one.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
WITHOUT = {"torch": "its build for CPUs alone comes from elsewhere, and is another file"}


def main() -> None:
    """Download, and write the file."""
    pinned = []
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        text = line.split("#")[0].strip()
        requirement = Requirement(text) if text else None
        if requirement is None or requirement.name in WITHOUT:
            continue
        if requirement.marker is None or requirement.marker.evaluate():
            pinned.append(f"{requirement.name}{requirement.specifier}")
    lines = ["# Written by `python -m tests.hashes`, for Linux on x86-64 and Python 3.11."]
    lines += [f"# Without {name}: {why}." for name, why in WITHOUT.items()]
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        for package in pinned:
            before = set(Path(folder).iterdir())
            subprocess.run([*download, package], check=True)
            (file,) = set(Path(folder).iterdir()) - before
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            lines.append(f"{package} --hash=sha256:{digest}")
    (ROOT / "hashes.txt").write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    main()

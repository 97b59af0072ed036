"""Real data for tests: a writable copy per session, or a skip that says what is missing."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SHARED = REPOSITORY.parent / "shared" / "datasets"
FOLDERS = ("cora_v2_", "citeseer_", "pubmed_", "minesweeper_", "MUTAG_", "PROTEINS_", "ENZYMES_")


@pytest.fixture(scope="session")
def real_data_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy of the real data sets at hand, because DGL writes caches beside raw files."""
    copy = tmp_path_factory.mktemp("dgl_raw")
    for place in (os.environ.get("DGL_DOWNLOAD_DIR"), SHARED / "dgl_raw"):
        if place is None or not Path(place).is_dir():
            continue
        for folder in Path(place).iterdir():
            if folder.name.startswith(FOLDERS) and not (copy / folder.name).exists():
                shutil.copytree(folder, copy / folder.name)
    archive = SHARED / "archives" / "TU_ENZYMES.zip"
    if archive.is_file():
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(copy)
    for path in copy.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


@pytest.fixture
def real_data_dir(real_data_copy: Path, monkeypatch: pytest.MonkeyPatch):
    """Function ``need(prefix)``: sets DGL_DOWNLOAD_DIR, or skips if there is no such folder."""

    def need(prefix: str) -> Path:
        if not any(real_data_copy.glob(f"{prefix}*")):
            pytest.skip(f"no {prefix}* in DGL_DOWNLOAD_DIR or {SHARED / 'dgl_raw'}")
        monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(real_data_copy))
        return real_data_copy

    return need


@pytest.fixture(scope="session")
def trackml_file() -> Path:
    """The TrackML npz, or a skip."""
    file = SHARED / "npz" / "trackml_event21000_pixel_sectors.npz"
    if not file.is_file():
        pytest.skip(f"no {file}")
    return file


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Empty DGL_DOWNLOAD_DIR and no network; the list collects the addresses asked for."""
    import requests

    asked: list[str] = []

    def refuse(self, method, url, **options):
        asked.append(url)
        assert options.get("timeout"), "a request without a time limit may hang"
        raise requests.ConnectionError("offline")

    monkeypatch.setattr(requests.Session, "request", refuse)
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path))
    return asked

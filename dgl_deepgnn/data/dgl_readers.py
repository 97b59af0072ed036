"""What reads files by DGL: data sets that DGL lacks or reads wrongly, and clear errors for all."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dgl
import dgl.data
import numpy as np
import requests
import torch
from dgl.data.utils import download, get_download_dir

from dgl_deepgnn.data.transforms import undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph

__all__ = ["HeterophilousGraphDataset", "TUDataset", "get_download_dir", "loading", "open_dataset"]

PROBE_SECONDS = 3


class HeterophilousGraphDataset(dgl.data.DGLBuiltinDataset):
    """One of the graphs of Platonov et al. (ICLR 2023), which DGL has from 2.0 on.

    Parameters
    ----------
    name : str
        "minesweeper", "tolokers", "questions", "roman-empire" or "amazon-ratings".
    """

    # DGL names the folder after a hash of the address.
    _url = "https://github.com/yandex-research/heterophilous-graphs/raw/main/data/{}.npz"

    def __init__(self, name: str) -> None:
        name = name.replace("-", "_")
        super().__init__(name, url=self._url.format(name))

    def download(self) -> None:
        """Fetch the npz file."""
        os.makedirs(self.raw_path, exist_ok=True)
        download(self.url, path=self.file)

    @property
    def file(self) -> str:
        """Path of the npz file."""
        return os.path.join(self.raw_path, f"{self.name}.npz")

    def process(self) -> None:
        """Build the graph."""
        with np.load(self.file, allow_pickle=False) as archive:
            arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
        src, dst = arrays["edges"].long().unbind(dim=1)
        graph = dgl.graph((src, dst), num_nodes=len(arrays["node_labels"]))
        self.graph = undirected(graph, self_loops=False)
        self.graph.ndata["feat"] = arrays["node_features"].float()
        self.graph.ndata["label"] = arrays["node_labels"].long()
        for part in ("train", "val", "test"):
            self.graph.ndata[f"{part}_mask"] = arrays[f"{part}_masks"].T.bool()

    def __getitem__(self, index: int) -> AnyGraph:
        return self.graph

    def __len__(self) -> int:
        return 1


class TUDataset(dgl.data.TUDataset):
    """TUDataset that unpickles nothing, and also reads labels where pandas is installed.

    pandas makes the labels a column, whose ``int(max(...))`` newer NumPy refuses.
    """

    def has_cache(self) -> bool:
        """Whether the graphs have been kept."""
        return os.path.exists(self.graph_path)

    def save(self) -> None:
        """Keep graphs and labels."""
        dgl.save_graphs(self.graph_path, self.graph_lists, {"labels": self.graph_labels})

    def load(self) -> None:
        """Read them back; DGL keeps two numbers, which nobody needs here, in a pickle beside."""
        self.graph_lists, labels = dgl.load_graphs(self.graph_path)
        self.graph_labels = labels["labels"]

    @staticmethod
    def _idx_reset(labels: np.ndarray) -> np.ndarray:
        return np.unique(labels.ravel(), return_inverse=True)[1]


def open_dataset(name: str, cls: type, /, **arguments: Any) -> Any:
    """Instance of a DGL data set class; absent and unreachable data is one error, at once."""

    class Guarded(cls):
        def _download(self) -> None:
            if self.url is not None and not os.path.exists(self.raw_path):
                _check_reachable(name, self.url, self.raw_path)
            super()._download()

    with loading(name):
        return Guarded(**arguments)


@contextlib.contextmanager
def loading(name: str) -> Iterator[None]:
    """Silence DGL, and say where the data is when reading it fails."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DGLError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise DGLError(
            f"Data set {name!r} cannot be loaded ({type(error).__name__}: {error}). Check its "
            f"options and its folder in {get_download_dir()}; if a download broke off, delete the "
            "folder and load again. DGL_DOWNLOAD_DIR names another place."
        ) from error


def _check_reachable(name: str, url: str, folder: str) -> None:
    try:
        with requests.get(url, stream=True, timeout=PROBE_SECONDS) as response:
            response.raise_for_status()
    except requests.RequestException as error:
        parent = Path(folder).parent
        raise DGLError(
            f"Data set {name!r} is not in {parent} and cannot be downloaded: {url} "
            f"({type(error).__name__}). Connect to the network, or put the contents of that file "
            f"into {folder}; if you have it in another folder, set DGL_DOWNLOAD_DIR to the folder "
            f"that holds {Path(folder).name}."
        ) from error

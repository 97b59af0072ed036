"""What published models can do beside scoring; the zoo, which stands on models, lends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph

__all__ = ["Origin", "Pretrained"]

Model = TypeVar("Model", bound="Pretrained")


class Origin(Protocol):
    """Where a published model comes from: what the zoo attaches to it."""

    def load_data(self) -> Any:
        """The data it was trained on."""

    def prepare(self, graph: AnyGraph) -> AnyGraph:
        """A raw graph, prepared as in training."""


class Pretrained:
    """The part of a model that is of the zoo."""

    pretrained: dict[str, Any] | None = None
    """What a model from a zoo was made from: the content of its ``config.json``."""

    origin: Origin | None = None

    hub: ClassVar[Callable[[], Any]]
    """Gives the package's ``hub``. Imports go one way, so the package, which stands above models
    and zoo, puts it here."""

    @classmethod
    def from_pretrained(
        cls: type[Model],
        name: str,
        zoo: str | Path | None = None,
        *,
        out_feats: int | None = None,
        **options: Any,
    ) -> Model:
        """Load a model of this class: of a zoo, of the Hugging Face Hub, or of a folder.

        Parameters
        ----------
        name, zoo, out_feats, **options
            See :func:`dgl_deepgnn.hub.from_pretrained`.

        Raises
        ------
        ZooError
            If the model is of another class, or cannot be loaded.
        """
        return cls.hub().from_pretrained(
            name, zoo, out_feats=out_feats, architecture=cls, **options
        )

    def save_pretrained(self, folder: str | Path, *, name: str | None = None) -> Path:
        """Write the model into a new folder that ``from_pretrained`` reads.

        Parameters
        ----------
        folder, name
            See :func:`dgl_deepgnn.hub.save_pretrained`.

        Raises
        ------
        ZooError
            If its class is not registered, or a weight is not finite.
        UserError
            If the folder exists.
        """
        return type(self).hub().save_pretrained(self, folder, name=name)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Put the model into a repository of the Hugging Face Hub.

        Parameters
        ----------
        repo_id, **options
            See :func:`dgl_deepgnn.hub.push_to_hub`.

        Raises
        ------
        ZooError
            As `save_pretrained`, or if the Hub refuses or cannot be reached.
        """
        return type(self).hub().push_to_hub(self, repo_id, **options)

    def load_data(self) -> Any:
        """Data that a published model was trained on, prepared as it was.

        Returns
        -------
        TaskData
            Graphs with features as the model reads them, labels and splits.

        Raises
        ------
        ZooError
            If the data cannot be loaded by its name in ``config.json``, or is not what the model
            was trained on.
        DGLError
            If the model does not come from a zoo.

        Examples
        --------
        >>> from dgl_deepgnn import ResGCN
        >>> ResGCN.from_pretrained("resgcn64.digits").load_data()
        TaskData('digits', node multiclass, graphs=1, nodes=1797, ...)
        """
        return self._origin().load_data()

    def prepare(self, graph: AnyGraph) -> AnyGraph:
        """Prepare a raw graph as those were that a published model was trained on.

        Edges are added, node labels and degrees become indicator columns and features are
        scaled, whatever the loader of the training data did. It is also what
        :func:`dgl_deepgnn.hub.predict` does.

        Parameters
        ----------
        graph : DGLGraph
            A graph as the data set's source has it, such as one of DGL's own data set or of a
            file of ``dgl.save_graphs``.

        Returns
        -------
        DGLGraph
            A copy to call the model with: ``model(ready, ready.ndata["feat"])``. New edges come
            behind those of `graph`, where edges are scored.

        Raises
        ------
        DGLError
            If the graph lacks a feature, holds a label that training did not know, or the model
            does not come from a zoo.

        Examples
        --------
        >>> import dgl, torch
        >>> from dgl_deepgnn import ResGCN
        >>> graph = dgl.rand_graph(10, 30)
        >>> words = (torch.rand(10, 1433) < 0.02).float()  # of ten papers
        >>> graph.ndata["feat"] = words / words.sum(dim=1, keepdim=True)
        >>> model = ResGCN.from_pretrained("resgcn64.cora")
        >>> ready = model.prepare(graph)  # with self-loops
        >>> model(ready, ready.ndata["feat"]).shape
        torch.Size([10, 7])
        """
        return self._origin().prepare(graph)

    def _origin(self) -> Origin:
        if self.origin is None:
            raise DGLError(
                "This model does not come from a zoo, so there is no record of its data. Load it "
                "with from_pretrained, or use dgl_deepgnn.load_data."
            )
        return self.origin

"""The zoo: publish, download, verify and use trained models."""

from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.evaluation import evaluate
from dgl_deepgnn.hub.finetuning import finetune
from dgl_deepgnn.hub.load import download, from_pretrained, list_pretrained
from dgl_deepgnn.hub.page import write_pages
from dgl_deepgnn.hub.prediction import predict
from dgl_deepgnn.hub.publishing import publish, refresh
from dgl_deepgnn.hub.pushing import push, push_to_hub, save_pretrained
from dgl_deepgnn.hub.store import open_zoo

__all__ = [
    "ZooError",
    "download",
    "evaluate",
    "finetune",
    "from_pretrained",
    "list_pretrained",
    "open_zoo",
    "predict",
    "publish",
    "push",
    "push_to_hub",
    "refresh",
    "save_pretrained",
    "write_pages",
]

"""Training of one seed: model, optimizer, steps, evaluation, and its exact state."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dgl_deepgnn.data import (
    TaskData,
    class_weights,
    evaluate_metrics,
    loss_function,
    loss_weight,
    main_metric,
)
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.nn import MODELS, DeepGNN, create_model
from dgl_deepgnn.optim import param_groups
from dgl_deepgnn.recipe import ModelSection, OptimizerSection, Recipe
from dgl_deepgnn.training.batches import Batch, Batches
from dgl_deepgnn.training.parent import body_of, start_from
from dgl_deepgnn.training.part import Evaluation, Part, PartBatches
from dgl_deepgnn.training.processes import ONE, Processes

__all__ = ["DivergenceError", "Step", "Trainer", "build_model", "find_device", "score"]


@dataclass(frozen=True)
class Step:
    """One optimizer step: loss before it, its duration in seconds, and the nodes it has seen."""

    loss: float
    seconds: float
    nodes: int


class DivergenceError(UserError):
    """The loss is no longer finite."""

    page = "docs/transfer.md"
    steps: Sequence[Step] = ()
    """Those of the epoch that went before."""


def find_device(name: str) -> torch.device:
    """Device of that name.

    Raises
    ------
    UserError
        If it is not a device's name or there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: not a device. Allowed: cpu, cuda, cuda:0, ...") from None
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device {name}: only cpu and cuda devices are supported.")
    if device.type == "cuda" and (device.index or 0) >= available:
        raise UserError(
            f"--device {name}: there is no such CUDA device here (found: {available}). "
            "Use --device cpu."
        )
    return device


def build_model(section: ModelSection, data: TaskData) -> DeepGNN:
    """Build the model of a recipe for a data set: widths and head come from the data."""
    arguments = section.arguments()
    reads = MODELS[section.name].needs_edge_feats or arguments.get("edge_messages")
    if data.level == "edge" or reads:
        arguments["edge_feats"] = data.edge_feats
    elif (data.info.get("preparation") or {}).get("edge"):  # somebody has asked for them
        warnings.warn(
            f"{section.name} does not read the edge features of {data.name}, relations included: "
            "model.options.edge_messages: true does, or the model resrgcn.",
            stacklevel=2,
        )
    return create_model(
        section.name,
        in_feats=data.in_feats,
        out_feats=data.num_outputs,
        head=data.level,
        **arguments,
    )


class Trainer:
    """Training of one recipe with one seed.

    Seed s takes split ``s % len(data.splits)`` of the data.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    data : TaskData
        The recipe's data.
    seed : int
        Seeds initialization, dropout and the order of batches. PyTorch's global generator is
        used; :meth:`state` holds it.
    device : torch.device
        Where to train.
    processes : Processes
        Those that train together, each with a trainer of its own: each takes its share of every
        batch, and the steps are those that one process would make of the whole.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TaskData,
        seed: int,
        device: torch.device | None = None,
        processes: Processes = ONE,
    ) -> None:
        device = device or torch.device("cpu")
        if processes.size > 1 and recipe.model.norm_layer == "batch":
            raise UserError(
                "model.norm_layer batch takes its statistics over a whole batch, of which each of "
                f"{processes.size} processes sees a part. Use norm_layer layer or none, or one "
                "process."
            )
        self.recipe, self.seed, self.processes = recipe, seed, processes
        self.target = data.target
        torch.manual_seed(seed)
        # Drawn on the CPU, so that a seed means the same weights on every device.
        model = build_model(recipe.model, data)
        if recipe.parent is not None:
            start_from(model, recipe.parent)
        self.model = model.to(device)
        self.order = torch.Generator().manual_seed(seed)
        split = seed % len(data.splits)
        batching = recipe.training.batching
        arguments = split, self.model, batching, device, processes
        self.batches: Batches | PartBatches = (
            PartBatches(data, *arguments) if isinstance(data, Part) else Batches(data, *arguments)
        )
        self._replica: nn.Module | None = None
        weights = None
        if recipe.training.class_weights == "balanced":
            labels = data.labels[data.splits[split]["train"]]
            weights = class_weights(labels, data.target, data.num_outputs).to(device)
        self.loss = loss_function(data.target, weights)
        self._class_weight = weights
        rate = 1.0 if recipe.parent is None else recipe.parent.body_rate
        self.optimizer = make_optimizer(recipe.optimizer, self.model, rate)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        per_epoch = self.batches.steps_per_epoch
        self.total_steps = recipe.training.steps or per_epoch * (recipe.training.epochs or 0)
        self.total_epochs = -(-self.total_steps // per_epoch)
        self.epoch = self.step = 0
        self.lr = recipe.optimizer.lr
        """Learning rate of the last step; with `optimizer.transfer`, before the factors."""

    def run_epoch(self) -> list[Step]:
        """Train for one epoch (or to the last step).

        Returns
        -------
        list of Step
            One entry a step.

        Raises
        ------
        DivergenceError
            If the loss is not finite; the message names step and layer.
        """
        self.model.train()
        if self._replica is None:
            self._replica = self.processes.replicate(self.model)
        self.processes.reseed(self.seed, self.epoch)
        steps: list[Step] = []
        for batch in self.batches.training(self.order):
            if self.step == self.total_steps:
                break
            start = time.perf_counter()
            try:
                loss, nodes = self._train_on(batch)
            except DivergenceError as error:
                error.steps = steps
                raise
            steps.append(Step(loss, time.perf_counter() - start, nodes))
            self.step += 1
        self.epoch += 1
        return steps

    def _train_on(self, batch: Batch) -> tuple[float, int]:
        factor = self._schedule()
        self.lr = self.recipe.optimizer.lr * factor
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad()
        loss, value, nodes = self._loss(batch)
        if not math.isfinite(value):
            where = self._explain_divergence(batch)
            raise DivergenceError(f"The training loss is {value} at step {self.step + 1} {where}")
        loss.backward()
        if self.recipe.optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        self.optimizer.step()
        return value, nodes

    def _loss(self, batch: Batch) -> tuple[Tensor, float, int]:
        """Loss to differentiate, and value and nodes of the whole batch, of all processes."""
        assert self._replica is not None
        mask = batch.masks["train"]
        scores = self._replica(batch.operator, batch.feat, edge_feat=batch.edge_feat)[mask]
        labels = batch.labels[mask]
        if self.processes.size == 1:
            loss = self.loss(scores, labels)
            return loss, loss.item(), batch.num_nodes
        # The mean over all items is that of the shares' means, each by its weight.
        weight = loss_weight(self.target, labels, self._class_weight)
        loss = self.loss(scores, labels) * weight if len(labels) else scores.sum() * 0
        sums = torch.tensor([loss.item(), weight, batch.num_nodes], dtype=torch.float64)
        total, weights, nodes = self.processes.sum(sums).tolist()
        # The gradients of the processes are averaged, not added.
        return loss * (self.processes.size / weights), total / weights, int(nodes)

    def _schedule(self) -> float:
        schedule = self.recipe.schedule
        factor = 1.0
        if schedule.warmup_steps:
            factor = min(1.0, (self.step + 1) / schedule.warmup_steps)
        if schedule.name == "cosine":
            factor *= 0.5 * (1 + math.cos(math.pi * self.step / self.total_steps))
        return factor

    def _explain_divergence(self, batch: Batch | Evaluation) -> str:
        """Of which run, in which layer, and what to try."""
        layer = "the loss itself"
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if not torch.isfinite(parameter).all():
                    layer = f"the weights {name}"
                    break
            else:
                watch = _NotFinite(self.model.convs)
                batch.scores(self.model)
                # Of all processes: the others see other nodes.
                first = int(self.processes.gather(torch.tensor([watch.first])).min())
                if first < len(self.model.convs):
                    layer = f"the output of convs.{first}"
        model = self.recipe.model
        advice = [f"a learning rate below {self.recipe.optimizer.lr:g} (optimizer.lr)"]
        if model.init != "critical":
            advice.append("model.init: critical")
        if model.residual in (None, "plain") and model.num_layers > 8:
            advice.append("model.residual: fixup")
        if self.recipe.optimizer.clip_norm is None:
            advice.append("optimizer.clip_norm: 1.0")
        return (
            f"of {self.recipe.title}, seed {self.seed}; the first value that is not finite stands "
            f"in {layer}. "
            f"Try {', or '.join(advice)}."
        )

    def evaluate(self, parts: Iterable[str] = ("train", "val", "test")) -> dict[str, Any]:
        """Loss and metrics of the model, in evaluation mode, by part of the split.

        Raises
        ------
        DivergenceError
            If a score is not finite; the message names step and layer.
        """
        try:
            memory = self.recipe.training.batching.memory
            return score(self.model, self.batches.evaluation, self.target, self.loss, parts, memory)
        except DGLError:
            for batch in self.batches.evaluation:
                if not torch.isfinite(batch.scores(self.model)).all():
                    where = self._explain_divergence(batch)
                    raise DivergenceError(
                        f"Scores are not finite after step {self.step} {where}"
                    ) from None
            raise

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """All that the next epoch depends on, as tensors and as JSON."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, entries in self.optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                if value is not None:
                    tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value)
        tensors["random.torch"] = torch.get_rng_state()
        tensors["random.order"] = self.order.get_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return tensors, {"epoch": self.epoch, "step": self.step}

    def load_state(self, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Raises
        ------
        LookupError, RuntimeError, TypeError, ValueError
            If that was of another model or optimizer.
        """
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "random": {}}
        for key, value in tensors.items():
            group, _, name = key.partition(".")
            if group in groups:
                groups[group][name] = value
        self.model.load_state_dict(groups["model"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in groups["optimizer"].items():
            index, _, name = key.partition(".")
            state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        for parameter, entries in self.optimizer.state.items():
            for name, value in entries.items():
                if value.dim() and value.shape != parameter.shape:
                    raise ValueError(f"{name} of the optimizer has shape {tuple(value.shape)}")
        torch.set_rng_state(groups["random"]["torch"])
        self.order.set_state(groups["random"]["order"])
        if "cuda" in groups["random"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(groups["random"]["cuda"])
        self.epoch, self.step = counters["epoch"], counters["step"]


def make_optimizer(
    section: OptimizerSection, model: DeepGNN, body_rate: float = 1.0
) -> torch.optim.Optimizer:
    """Optimizer with weight decay by parameter group: the branches, and the two ends.

    `body_rate` is the learning rate of all but the head over that of the head.
    """
    branches = {id(p) for conv in model.convs[1:-1] for p in conv.parameters()}
    parameters = dict(model.named_parameters())
    decay = section.weight_decay
    if section.transfer:
        groups = param_groups(
            model,
            section.lr,
            section.name,
            weight_decay={
                name: decay.branches if id(p) in branches else decay.ends
                for name, p in parameters.items()
            },
        )
    else:
        groups = [
            {"params": some, "lr": section.lr, "weight_decay": amount}
            for some, amount in (
                ([p for p in parameters.values() if id(p) in branches], decay.branches),
                ([p for p in parameters.values() if id(p) not in branches], decay.ends),
            )
            if some
        ]
    if body_rate != 1:
        groups = _slower_body(groups, model, body_rate)
    if section.name == "sgd":
        return torch.optim.SGD(groups, lr=section.lr, momentum=section.momentum)
    kind = torch.optim.Adam if section.name == "adam" else torch.optim.AdamW

    def make(fused: bool) -> torch.optim.Optimizer:
        # Copies: a constructor that fails leaves its defaults behind in the groups.
        return kind([dict(group) for group in groups], lr=section.lr, fused=fused)

    try:
        # The fused step is several times faster for the many small matrices of a deep network.
        return make(fused=True)
    except RuntimeError:  # before PyTorch 2.4 on a CPU
        return make(fused=False)


def _slower_body(groups: list[dict[str, Any]], model: DeepGNN, rate: float) -> list[dict[str, Any]]:
    inside = body_of(model)
    body = {id(parameter) for name, parameter in model.named_parameters() if name in inside}
    split = []
    for group in groups:
        kept = [p for p in group["params"] if id(p) in body and p.requires_grad]
        new = [p for p in group["params"] if id(p) not in body]
        split += [
            {**group, "params": kept, "lr": group["lr"] * rate},
            {**group, "params": new},
        ]
    return [group for group in split if group["params"]]


def score(
    model: DeepGNN,
    batches: Sequence[Batch | Evaluation],
    target: Any,
    loss: Any,
    parts: Iterable[str] = ("train", "val", "test"),
    memory: str | int | None = None,
) -> dict[str, Any]:
    """Loss and metrics by part of the split; of the main metric's name see ``main_metric``."""
    model.eval()
    with torch.no_grad():
        scores = [batch.scores(model, memory) for batch in batches]
    result: dict[str, Any] = {}
    for part in parts:
        chosen = torch.cat([s[b.masks[part]] for s, b in zip(scores, batches, strict=True)])
        labels = torch.cat([b.labels[b.masks[part]] for b in batches])
        result[part] = {
            "loss": loss(chosen, labels).item(),
            **evaluate_metrics(target, chosen, labels),
        }
    return result


def is_better(
    target: Any,
    metrics: dict[str, float],
    best: dict[str, float] | None,
    by: Literal["metric", "loss"] = "metric",
) -> bool:
    """Whether validation metrics beat the best so far; a tie goes to the other score.

    So does a metric that is not defined, as roc_auc where all labels are equal.
    """
    if best is None:
        return True
    name, greater = main_metric(target)
    sign = 1 if greater else -1
    new, old = (
        (-math.inf if math.isnan(some[name]) else sign * some[name], -some["loss"])
        for some in (metrics, best)
    )
    return new > old if by == "metric" else new[::-1] > old[::-1]


class _NotFinite:
    """Watches which layer is the first whose output is not finite."""

    def __init__(self, layers: nn.ModuleList) -> None:
        self.first = len(layers)
        for index, layer in enumerate(layers):
            layer.register_forward_hook(partial(self._check, index))

    def _check(self, index: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        if index < self.first and not torch.isfinite(output).all():
            self.first = index

"""Critical points against published values, laws of scale, and random networks."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.activation import CriticalPoint, critical_point

FIXED = [F.gelu, functools.partial(F.gelu, approximate="tanh"), F.silu, F.mish, F.hardswish]


@pytest.mark.parametrize(
    ("activation", "weight", "bias", "mean_square"),
    [
        # The Principles of Deep Learning Theory, section 5.3.4.
        (nn.GELU(), 1.98305826, 0.17292239, (3 + 17**0.5) / 2),
        (nn.SiLU(), 1.98800468, 0.55514317, 14.32017362),
    ],
)
def test_published_values(
    activation: nn.Module, weight: float, bias: float, mean_square: float
) -> None:
    point = critical_point(activation)
    found = point.weight_variance, point.bias_variance, point.mean_square
    assert found == pytest.approx((weight, bias, mean_square), rel=1e-7)


def mean_at(function: Callable[[Tensor], Tensor], mean_square: float) -> float:
    """Mean over N(0, mean_square) by adaptive quadrature."""

    def integrand(z: float) -> float:
        value = float(function(torch.tensor(z * mean_square**0.5, dtype=torch.float64)))
        return value * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    return quad(integrand, -10, 10, points=[0.0], limit=200)[0]


@pytest.mark.parametrize("activation", FIXED)
def test_the_three_conditions_by_finite_differences(
    activation: Callable[[Tensor], Tensor],
) -> None:
    point = critical_point(activation)
    assert point.mean_square is not None and point.bias_variance >= 0

    def square(mean_square: float) -> float:
        return mean_at(lambda x: activation(x).square(), mean_square)

    def slope_square(x: Tensor) -> Tensor:
        return ((activation(x + 1e-6) - activation(x - 1e-6)) / 2e-6).square()

    kept = point.bias_variance + point.weight_variance * square(point.mean_square)
    assert kept == pytest.approx(point.mean_square, rel=1e-5)
    step = 0.01 * point.mean_square
    change = (square(point.mean_square + step) - square(point.mean_square - step)) / (2 * step)
    assert point.weight_variance * change == pytest.approx(1, abs=2e-3)
    across = point.weight_variance * mean_at(slope_square, point.mean_square)
    assert across == pytest.approx(1, abs=1e-3)


def deep(
    point: CriticalPoint, activation: Callable[[Tensor], Tensor], start: float, depth: int
) -> tuple[float, float]:
    """Mean square behind a random deep network, and of the gradient in front of it (mean of 3)."""
    width, out, back = 800, [], []
    generator = torch.Generator().manual_seed(0)

    def normal(variance: float, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * variance**0.5

    for _ in range(3):
        first = z = normal(start, 16, width).requires_grad_()
        for _ in range(depth):
            weight = normal(point.weight_variance / width, width, width)
            z = activation(z) @ weight + normal(point.bias_variance, width)
        out.append(z.detach().square().mean().item())
        (gradient,) = torch.autograd.grad(z, first, normal(1, *z.shape))
        back.append(gradient.square().mean().item())
    return float(np.mean(out)), float(np.mean(back))


@pytest.mark.parametrize("activation", [F.gelu, F.silu, F.mish, F.leaky_relu, nn.ELU(), nn.SELU()])
def test_random_networks_keep_outputs_and_gradients(
    activation: Callable[[Tensor], Tensor],
) -> None:
    point = critical_point(activation)
    start = {None: 1.0, 0.0: 1e-4}.get(point.mean_square, point.mean_square)
    signal, gradient = deep(point, activation, start, depth=24)
    assert signal / start == pytest.approx(1, abs=0.3)
    assert gradient == pytest.approx(1, abs=0.3)
    more = CriticalPoint(1.2 * point.weight_variance, point.bias_variance, point.mean_square)
    assert deep(more, activation, start, depth=24)[1] > 10


def test_tanh_falls_by_a_power_of_the_depth_only() -> None:
    """K' = K - 2 K^2 leaves about 1 / (2 L) of order one, and 1 - 2 K about 1 / L of gradients."""
    signal, gradient = deep(critical_point(torch.tanh), torch.tanh, start=1.0, depth=48)
    assert signal == pytest.approx(1 / (2 * 48), rel=0.4)
    assert 0.3 < gradient * 48 < 3


@settings(deadline=None, max_examples=30)
@given(slope=st.floats(-1.5, 1.5), factor=st.floats(0.1, 10))
def test_homogeneous_activations_keep_any_scale(slope: float, factor: float) -> None:
    expected = CriticalPoint(pytest.approx(2 / (1 + slope**2)), 0.0, None)  # type: ignore[arg-type]
    assert critical_point(lambda x: F.leaky_relu(x, slope)) == expected
    assert critical_point(nn.LeakyReLU(slope)) == expected
    module = nn.PReLU(3)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([slope, slope, slope]))
    assert critical_point(module) == expected
    scaled = critical_point(lambda x: factor * F.leaky_relu(x, slope))
    assert scaled.weight_variance == pytest.approx(2 / (1 + slope**2) / factor**2)


@settings(deadline=None, max_examples=15)
@given(
    activation=st.sampled_from([*FIXED, torch.tanh, nn.ELU(0.7)]),
    outer=st.floats(0.3, 3),
    inner=st.floats(0.5, 2),
)
@example(activation=F.mish, outer=1.0, inner=0.7443609022556391)  # -744 gives -4e-321, or none
def test_laws_of_scale(activation: Callable[[Tensor], Tensor], outer: float, inner: float) -> None:
    plain, scaled = (
        critical_point(f) for f in (activation, lambda x: outer * activation(inner * x))
    )
    assert scaled.weight_variance == pytest.approx(
        plain.weight_variance / (outer * inner) ** 2, rel=1e-3
    )
    assert scaled.bias_variance == pytest.approx(plain.bias_variance / inner**2, rel=1e-2)
    assert scaled.mean_square == pytest.approx(plain.mean_square / inner**2, rel=1e-2)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("activation", "weight"),
    [
        (None, 1.0),
        (nn.Identity(), 1.0),
        (torch.abs, 1.0),
        (nn.ReLU(inplace=True), 2.0),
        (nn.RReLU(0.1, 0.3).eval(), 2 / 1.04),
        (nn.RReLU(0.1, 0.3), 2 / (1 + 0.13 / 3)),
        (nn.PReLU(2), 2 / (1 + 1 / 16)),
        (functools.partial(F.prelu, weight=torch.tensor([0.5])), 1.6),
        (nn.Tanh(), 1.0),
        (torch.sin, 1.0),
        (nn.Softsign(), 1.0),
        (nn.CELU(2.0), 1.0),
        (nn.ELU(0.5), 1.6),
        (nn.SELU(), 2 / (1.0507009873554805**2 * (1 + 1.6732632423543772**2))),
        (nn.ReLU6(), 2.0),
        (nn.Sequential(nn.Tanh(), nn.Identity()), 1.0),
    ],
)
def test_without_biases(activation: nn.Module | None, weight: float) -> None:
    point = critical_point(activation)
    assert point.weight_variance == pytest.approx(weight, rel=1e-6)
    assert point.bias_variance == 0
    assert not point.mean_square


def test_finds_it_under_no_grad_and_changes_nothing() -> None:
    module = nn.PReLU()
    with torch.no_grad():
        assert critical_point(lambda x: x * torch.sigmoid(1.702 * x)).bias_variance > 0
        critical_point(module)
    assert module.weight.grad is None


def test_parameters_count_as_they_are_now() -> None:
    """What was found before training is not the answer after it."""

    class Swish(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.beta = nn.Parameter(torch.tensor(1.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(self.beta * x)

    swish = Swish()
    before = critical_point(swish)
    assert before.mean_square == pytest.approx(14.32017362, rel=1e-5)
    with torch.no_grad():
        swish.beta.fill_(2.0)
    assert critical_point(swish).mean_square == pytest.approx(14.32017362 / 4, rel=1e-5)


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (nn.Sigmoid(), r"Sigmoid has no critical point .*0\.5 at 0.*feat"),
        (nn.Softplus(), "Softplus has no critical point"),
        (F.logsigmoid, "no critical point"),
        (nn.Softshrink(), "bends away from zero"),
        (lambda x: F.relu(x) ** 2, "bends away from zero"),
        (torch.exp, "no finite mean square"),
        (torch.sqrt, "no finite mean square"),
        (torch.cos, "no critical point"),
        (nn.Softmax(-1), "each entry by itself"),
        (nn.Dropout(0.5), "each entry by itself"),
        (nn.GLU(), "could not be used"),
        (nn.Linear(3, 3), "could not be used"),
        (torch.zeros_like, "differentiable"),
        (lambda x: 0 * x, "no critical point"),
        (lambda x: x.detach().numpy(), "could not be used"),
        ("relu", "could not be used"),
    ],
)
def test_without_critical_point(activation: object, message: str) -> None:
    with pytest.raises(DGLError, match=message):
        critical_point(activation)  # type: ignore[arg-type]


def test_silu_with_too_small_biases_loses_its_gradients() -> None:
    point = critical_point(F.silu)
    tenth = CriticalPoint(point.weight_variance, point.bias_variance / 10, None)
    signal, gradient = deep(tenth, F.silu, start=1.0, depth=24)
    assert signal == pytest.approx(0.12, rel=0.1)
    assert 0.5**28 < gradient < 0.5**18


def test_the_table_of_the_page_is_what_is_found() -> None:
    page = Path(__file__).parents[2] / "docs" / "theory.md"
    modules = {name.lower(): module for name, module in vars(nn).items()}
    checked = 0
    for line in page.read_text("utf-8").splitlines():
        match = re.fullmatch(r"\| ([A-Za-z, ]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", line)
        for name in match[1].split(", ") if match else ():
            point = critical_point(modules[name.lower()]())
            found = point.weight_variance, point.bias_variance, point.mean_square
            for written, value in zip(match.groups()[1:], found, strict=True):  # type: ignore[union-attr]
                assert float(written) == pytest.approx(value, rel=2e-3), name
            checked += 1
    assert checked >= 8

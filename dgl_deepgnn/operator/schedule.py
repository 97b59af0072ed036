"""How strongly each layer aggregates: schedules of the interpolation t."""

from __future__ import annotations

from dgl_deepgnn.errors import DGLError

__all__ = ["interpolation_schedule", "without_ends"]


def interpolation_schedule(t: float | str, num_layers: int) -> list[float]:
    r"""Interpolation :math:`t_l` of every layer.

    What survives of the differences between nodes after all layers is about
    :math:`\prod_l (1 - t_l (1 - \lambda_2))`: bounded away from zero exactly when
    :math:`\sum_l t_l` is. Read :math:`t` as a diffusion step, the sum as the diffusion time.

    Parameters
    ----------
    t : float or str
        A float: the same t in every layer. ``"per-depth:c"``: ``min(1, c / num_layers)``, a
        total of c at every depth. ``"harmonic:c"``: ``min(1, c / l)`` in layer l = 1, 2, ...
        A bare ``"per-depth"`` has c = 4, a bare ``"harmonic"`` has c = 1.
    num_layers : int
        Number of layers, at least 1.

    Returns
    -------
    list of float
        One value a layer.

    Raises
    ------
    DGLError
        If `t` is out of range or not understood.

    Examples
    --------
    >>> interpolation_schedule("per-depth:2", 4)
    [0.5, 0.5, 0.5, 0.5]
    >>> interpolation_schedule("harmonic:1", 4)
    [1.0, 0.5, 0.3333333333333333, 0.25]
    """
    kind, _, argument = str(t).partition(":")
    default = {"per-depth": 4.0, "harmonic": 1.0}
    try:
        value = float(argument) if argument else default[kind] if kind in default else float(t)
    except (OverflowError, TypeError, ValueError):
        value = float("nan")
    if kind in default:
        if 0 < value < float("inf"):
            layers = range(1, num_layers + 1)
            divisors = [num_layers] * num_layers if kind == "per-depth" else layers
            return [min(1.0, value / divisor) for divisor in divisors]
    elif 0 < value <= 1:
        return [value] * num_layers
    raise DGLError(
        f"t = {t!r} is not an interpolation schedule. Allowed: a number in (0, 1], "
        "'per-depth:c' or 'harmonic:c' with c > 0, for example t='per-depth:4'."
    )


def without_ends(schedule: list[float], *, both: bool) -> list[float]:
    """No aggregation in the first layer, nor (`both`) in the last; if a layer is left that does.

    Examples
    --------
    >>> without_ends([0.5, 0.5, 0.5], both=True)
    [0.0, 0.5, 0.0]
    >>> without_ends([0.5, 0.5], both=True)
    [0.5, 0.5]
    """
    inner = schedule[1:-1] if both else schedule[1:]
    return [0.0, *inner, *([0.0] if both else [])] if inner else schedule

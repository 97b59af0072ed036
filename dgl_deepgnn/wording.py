"""How numbers are put into sentences."""

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Number and noun, in the plural unless it is one.

    Examples
    --------
    >>> counted(1, "layer"), counted(64, "layer")
    ('1 layer', '64 layers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

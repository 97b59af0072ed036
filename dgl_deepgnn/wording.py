"""How numbers are put into sentences."""

__all__ = ["counted", "printable"]


def counted(number: int, noun: str) -> str:
    """Number and noun, in the plural unless it is one.

    Examples
    --------
    >>> counted(1, "layer"), counted(64, "layer")
    ('1 layer', '64 layers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    r"""Text in which nothing but line breaks can move a terminal's cursor, or worse.

    Examples
    --------
    >>> print(printable("a name\x1b[2J"))
    a name\x1b[2J
    """
    return "".join(
        letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text
    )

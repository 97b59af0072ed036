"""How numbers, and what others wrote, are put into sentences."""

import reprlib

__all__ = ["counted", "fixed", "plotted", "printable", "quoted"]


def counted(number: int, noun: str) -> str:
    """Number and noun, in the plural unless it is one.

    Examples
    --------
    >>> counted(1, "layer"), counted(64, "layer")
    ('1 layer', '64 layers')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def fixed(number: float, digits: int) -> str:
    """Number with so many digits behind the point; one that is huge in powers of ten.

    Examples
    --------
    >>> fixed(0.84512, 4), fixed(1e308, 4)
    ('0.8451', '1e+308')
    """
    return f"{number:.{digits}f}" if abs(number) < 1e9 else f"{number:.4g}"


def plotted(text: str, most: int = 100) -> str:
    r"""Text as matplotlib is to draw it: no formula, and not endless.

    Examples
    --------
    >>> plotted("between $ and $"), len(plotted("x" * 1000))
    ('between \\$ and \\$', 103)
    """
    return (text if len(text) <= most else f"{text[:most]}...").replace("$", r"\$")


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


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 200
        self.maxlevel, self.maxlist, self.maxdict = 4, 10, 10

    def repr_int(self, number: int, level: int) -> str:
        if abs(number) >= 10**self.maxlong:  # Python refuses to write out the longest
            return "a whole number of hundreds of digits"
        return repr(number)


def quoted(value: object) -> str:
    """A value as Python writes it, cut where it is long.

    Examples
    --------
    >>> quoted("two"), quoted(list(range(1000)))
    ("'two'", '[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ...]')
    """
    return _Short().repr(value)

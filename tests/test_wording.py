from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.wording import printable, quoted


@given(text=st.text())
def test_nothing_that_controls_a_terminal_is_left(text: str) -> None:
    made = printable(text)
    assert made.replace("\n", "").isprintable()
    if text.replace("\n", "").isprintable():
        assert made == text
    assert str(UserError(text)) == made


def test_every_control_character() -> None:
    for code in [*range(32), *range(0x7F, 0xA0), 0x202E, 0x2028, 0xD800]:
        if chr(code) != "\n":
            assert printable(chr(code)).startswith("\\")


def test_what_is_long_is_cut() -> None:
    for value in ("x" * 10**6, [1] * 10**6, {i: i for i in range(10**6)}, 10**5000, b"x" * 10**6):
        assert len(quoted(value)) < 1000
    for value in ("x", 1, -1, 10**100, [1, "a", None, 1.5], {"a": True}):
        assert quoted(value) == repr(value)

"""A terminal on which one picture is drawn over the other, and which is left as it was found."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from cluster.watch_picture import Picture

# The alternate screen, which leaves what was there alone; no cursor; what is too long for a line is cut.
ENTER, LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
HOME, END_LINE, END_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
UNKNOWN = (80, 24)


class Screen:
    """Draws pictures, and the last one again where the window has changed."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._picture: Picture | None = None
        self._drawn = UNKNOWN

    def show(self, picture: Picture) -> None:
        """Draws a picture."""
        self._picture = picture
        self._draw()

    def tick(self) -> None:
        """Draws it again in a window of another size."""
        if self._size() != self._drawn:
            self._draw()

    def _draw(self) -> None:
        self._drawn = width, height = self._size()
        lines = self._picture.lines(width, height) if self._picture else []
        self._stream.write(HOME + "\n".join(line + END_LINE for line in lines) + END_SCREEN)
        self._stream.flush()

    def _size(self) -> tuple[int, int]:
        """Columns and lines; some terminals do not know theirs."""
        size = os.get_terminal_size(self._stream.fileno())
        return (size.columns or UNKNOWN[0], size.lines or UNKNOWN[1])


@contextmanager
def opened_screen(stream: TextIO) -> Iterator[Screen]:
    """A screen for as long as the block lasts."""
    stream.write(ENTER)
    try:
        yield Screen(stream)
    finally:
        stream.write(LEAVE)
        stream.flush()

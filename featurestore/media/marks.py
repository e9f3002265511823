"""Marks: what a packet says about its picture, in the words that all codecs share."""

from __future__ import annotations

CLEAN = 1
"""nothing that follows in the file needs anything before"""
OPEN = 2
"""nothing that is shown later needs anything before; what is shown earlier, though it follows in the file, may"""
HIDDEN = 4
"""shows no picture of its own"""
WHOLE = 8
"""a refresh of several pictures is complete: what is shown from here on needs nothing before it began"""


class Bitstream:
    """Reads the packets of one stream in their order.

    odd     a packet need not be one picture here, or the decoder need not show it: it has to be asked
    layers  pictures that look unneeded may be needed by those of a higher temporal layer
    begun   packet at which the refresh began that the last WHOLE packet completes
    watched whether packets are asked for the order in which their pictures are shown
    in_order whether that is the order of the file, as far as packets that were asked say so
    """

    def __init__(self) -> None:
        self.odd = False
        self.layers = False
        self.begun = 0
        self.watched = self.in_order = False

    def look(self, data: memoryview, position: int) -> int:
        """The flags above for the packet at this position."""
        raise NotImplementedError

"""Text from anywhere, made fit for a document.

Imports nothing of ours.
"""

from __future__ import annotations

import re

NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 section 2.2 does not let into a document, escaped or not."""


def printable(text: str) -> str:
    """The text, with U+FFFD for every character that a document cannot hold."""
    return NOT_XML.sub("\ufffd", text)

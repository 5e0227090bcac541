"""What a wrong rule is answered with.

Imports nothing.
"""

from __future__ import annotations


class FaultRuleError(ValueError):
    """A fault rule that cannot be understood, in one sentence for the user."""

"""Deliberately broken targets: one thing each is changed, then every check is run.

A mutant names the check that must catch it, and every family that may see it. The families that fail must be
exactly those: a check that fails for another's reason would hide what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu_odx.target.commands import table
from qemu_odx.target.plan import Data
from qemu_odx.target.policy import Policy
from qemu_odx.testing.conformance.checks import all_checks
from qemu_odx.testing.conformance.local import LocalDevice
from qemu_odx.testing.conformance.run import Verdict, run_checks

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from qemu_odx.target.plan import Plan
    from qemu_odx.target.request import Request
    from qemu_odx.testing.conformance.reference import ReferenceTarget


@dataclass
class Mutation:
    """What a mutant may do to the target."""

    patch: pytest.MonkeyPatch
    on_target: Callable[[ReferenceTarget], None] = field(default=lambda _: None)

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Put another attribute in the place of one that must be there."""
        self.patch.setattr(owner, name, value)

    def before(self, name: str, act: Callable[[Request], Plan | None]) -> None:
        """Answer a command in the handler's place, unless `act` gives None."""
        handler = table.HANDLERS[name]
        self.patch.setitem(table.HANDLERS, name, lambda request: act(request) or handler(request))

    def after(self, name: str, act: Callable[[Request, Plan], Plan]) -> None:
        """Change what the handler planned."""
        handler = table.HANDLERS[name]
        self.patch.setitem(table.HANDLERS, name, lambda request: act(request, handler(request)))

    def data(self, name: str, change: Callable[[Request, bytearray], Any]) -> None:
        """Change the data-in of a command; `change` works in place or returns the new bytes."""

        def act(request: Request, plan: Plan) -> Plan:
            if not isinstance(plan, Data) or not plan.data:
                return plan
            data = bytearray(plan.data)
            changed = change(request, data)
            return Data(bytes(data if changed is None else changed))

        self.after(name, act)


@dataclass(frozen=True)
class Mutant:
    """A broken target and who must notice."""

    name: str
    caught_by: str
    families: frozenset[str]
    policy: Policy
    make: Callable[[Mutation], None]


class Mutants(list[Mutant]):
    """A list that functions are added to."""

    def add(
        self, caught_by: str, *others: str, policy: Policy | None = None
    ) -> Callable[[Callable[[Mutation], None]], Callable[[Mutation], None]]:
        """A mutant that `caught_by` must catch; families in `others` see it too."""

        def adding(make: Callable[[Mutation], None]) -> Callable[[Mutation], None]:
            families = frozenset({caught_by.partition(".")[0], *others})
            self.append(Mutant(make.__name__, caught_by, families, policy or Policy(), make))
            return make

        return adding


def failures(policy: Policy, on_target: Callable[[ReferenceTarget], None] = lambda _: None) -> dict[str, str]:
    """Every check on a fresh target each: those that failed, and why."""

    def device() -> LocalDevice:
        made = LocalDevice(policy)
        on_target(made.reference)
        return made

    results = run_checks(all_checks(), device, destroy=True)
    return {result.check.id: result.why for result in results if result.verdict is Verdict.FAIL}


def assert_caught(mutant: Mutant, patch: pytest.MonkeyPatch) -> None:
    """The mutant fails the check that it should, and no family but those that may see it."""
    mutation = Mutation(patch)
    mutant.make(mutation)
    failed = failures(mutant.policy, mutation.on_target)
    assert mutant.caught_by in failed, f"not caught; failed instead: {sorted(failed)}"
    assert {check.partition(".")[0] for check in failed} == mutant.families, failed

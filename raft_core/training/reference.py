"""What a loss compares the policy with: its frozen start, or weights that follow it from round to round."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raft_core.errors import ModelError
from raft_core.protocols import Policy

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Reference:
    """What the policy is compared with by losses that have a reference: DPO, KTO, a price of divergence in the loss.

    Rewards (``KLPenalised``), the metric ``kl`` and the comparison at the end go by the frozen start whatever is set here.

    Args:
        every: rounds after which it takes up the policy as it is then; null = never: it stays the frozen start. 1 makes
            iterative DPO, in which the reference is the policy that drew the round's samples; more makes it semi-online.
        mix: part of the policy in what is taken up, in (0, 1]. 1 = the policy itself; less = a moving average over rounds,
            which begins at the weights that training began with.

    Source: semi-online DPO (2506.21495) for ``every``; TR-DPO (2404.09656) for its soft update, ``mix``.
    """

    every: int | None = None
    mix: float = 1.0

    def mistakes(self) -> list[str]:
        """Values that make no sense, in words."""
        found = []
        if self.every is not None and self.every < 1:
            found.append(f"reference.every is {self.every}, but must be at least 1 round; null keeps the frozen start")
        if not 0 < self.mix <= 1 or math.isnan(self.mix):
            found.append(f"reference.mix is {self.mix}, but must be in (0, 1]; 1 takes up the policy itself")
        elif self.mix != 1 and self.every is None:
            found.append(
                f"reference.mix is {self.mix}, but reference.every is null, so nothing is ever taken up: set every, as to 1"
            )
        return found


class Follower:
    """A reference while it is in use: the values of the trained parameters that stand for it.

    Args:
        settings: when it follows, and how far.
        parameters: gives those of the policy, by stable names; asked at each use, for others may have taken their places.
    """

    def __init__(self, settings: Reference, parameters: Callable[[], Mapping[str, torch.nn.Parameter]]):
        self.settings = settings
        self._parameters = parameters
        self._values: dict[str, torch.Tensor] | None = None  # whole, on the CPU
        self._near: dict[str, torch.Tensor] = {}  # the same where the parameters are, while a round is trained on
        self._moved = False

    def begin(self, rnd: int) -> None:
        """Take up the policy, if it is time to before round ``rnd``; call before the round's first step."""
        self._near = {}
        every = self.settings.every
        if every is None:
            return
        if self._values is None and self.settings.mix < 1:
            self._values = self._copied()  # in round 1, and not earlier: a resumed run has the start only now
        if rnd == 1 or (rnd - 1) % every:
            return
        now = self._copied()
        if self._values is not None and self.settings.mix < 1:
            now = {name: self._values[name].lerp_(value, self.settings.mix) for name, value in now.items()}
        self._values, self._moved = now, True

    def _copied(self) -> dict[str, torch.Tensor]:
        return {name: parameter.detach().to("cpu", copy=True) for name, parameter in self._parameters().items()}

    def rest(self) -> None:
        """Out of the way of other phases: what was fetched to the device in training is left to the CPU alone."""
        self._near = {}

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the policy's parameters hold the reference's values, and nothing has a gradient."""
        import torch

        from raft_core.models.reference import exchange, like

        parameters = dict(self._parameters())
        device = next(iter(parameters.values())).device.type
        before: dict[str, torch.Tensor] = {}
        try:
            for name, parameter in parameters.items():
                before[name] = exchange(parameter, self._value_for(name, parameter, like))
            with contextlib.ExitStack() as stack:
                stack.enter_context(torch.no_grad())
                if torch.is_autocast_enabled(device):
                    # A cast that autocast has kept would go on standing for the policy's weights.
                    dtype = torch.get_autocast_dtype(device)
                    stack.enter_context(torch.autocast(device, dtype=dtype, cache_enabled=False))
                yield
        finally:
            for name, value in before.items():
                exchange(parameters[name], value)

    def _value_for(self, name: str, parameter: torch.nn.Parameter, like: Any) -> torch.Tensor:
        """A value where the parameter is; fetched once and not for every micro-batch, unless the parameter has moved since."""
        assert self._values is not None
        near = self._near.get(name)
        if near is None or type(near) is not type(parameter.data) or near.device != parameter.device:
            near = self._near[name] = like(self._values[name], parameter)
        return near

    def seen_by(self, policy: Policy) -> Policy:
        """The same policy, whose ``reference=True`` means this reference; itself while that is the frozen start."""
        return referring(policy, self) if self._moved else policy

    def state_dict(self) -> tuple[dict[str, torch.Tensor], bool]:
        """All that a resumed run needs: (values by parameter, empty when there are none yet; whether they are the reference).

        A moving average begins at the start, which that of another process need not be: it is kept from the first round on.
        """
        return {name: value.clone() for name, value in (self._values or {}).items()}, self._moved

    def load_state_dict(self, values: Mapping[str, torch.Tensor], moved: bool) -> None:
        """Take up a state that ``state_dict`` gave.

        Raises:
            ModelError: of other parameters, or where the reference is now to stay the start.
        """
        if not values:
            return
        if self.settings.every is None or set(values) != set(self._parameters()):
            why = "trainer.reference.every is null" if self.settings.every is None else "the policy trains other parameters"
            raise ModelError(
                f"the trainer's state holds a reference that has followed the policy, but {why}: resume with the settings that "
                "the run began with"
            )
        self._values, self._moved = {name: value.detach().cpu().clone() for name, value in values.items()}, moved


#: Methods of a policy that take ``reference``; those that it has.
COMPARED = ("nll", "step_log_probs", "token_log_probs", "step_predictions")


def referring(policy: Policy, reference: Follower) -> Policy:
    """A view of a policy, with the same attributes, whose likelihoods under ``reference=True`` are those of a follower."""
    applied = reference.applied

    def following(name: str) -> property:
        def compared(*arguments: Any, reference: bool = False, **others: Any) -> Any:
            with applied() if reference else contextlib.nullcontext():
                return getattr(policy, name)(*arguments, **others)

        return property(lambda _: compared)  # goes before what the policy may have under that name in its __dict__

    kind = type(policy)
    members = {name: following(name) for name in COMPARED if hasattr(policy, name)}
    view: Any = object.__new__(type(kind.__name__, (kind,), members))
    view.__dict__ = policy.__dict__  # shared: what either remembers, the other knows
    return view

"""Every process has a part of all weights, gradients and moments: torch's FSDP2, by accelerate where there are accelerators.

Inside a round's training the network is spread: each pass gathers a layer's weights and lets them go again, so all processes
have to make the same passes at the same time. Outside, every process has all weights, as a policy, a store and an evaluation
expect, and works alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from raft_core.capabilities import Shards
from raft_core.errors import ConfigError
from raft_core.protocols import Policy
from raft_core.training.replicas import Losses, whole

if TYPE_CHECKING:
    from accelerate import Accelerator


def sharding_asked() -> bool:
    """Whether accelerate has been configured for FSDP, by ``accelerate launch --use_fsdp`` or its file."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shardable(policy: Policy) -> tuple[Shards, torch.nn.Module]:
    """The policy and the network whose weights can be spread over processes.

    Raises:
        ConfigError: there is none.
    """
    if not isinstance(policy, Shards):
        raise ConfigError(
            f"accelerate is configured for FSDP, but {type(policy).__name__} has no network whose weights could be spread over "
            "processes: train without it, each process with all weights"
        )
    network = policy.shardable()
    if {id(p) for p in policy.trainable().values()} != {id(p) for p in network.parameters()}:
        raise ConfigError(
            "accelerate is configured for FSDP, which spreads a network that is trained in full, but a part of it alone is "
            "trained: set policy.lora to null, or train without FSDP, each process with all weights"
        )
    return policy, network


class ShardedWeights:
    """The trained parameters spread over processes, and the optimiser; has what ``Replicas`` has.

    Args:
        policy: its network is spread from the first round's training on.
        parameters: float32, by stable names.
        build: the optimiser over parameters.
        accelerator: of this run.

    Raises:
        ConfigError: there is no network that can be spread, or FSDP's first version is asked for.
    """

    in_step = True

    def __init__(
        self,
        policy: Policy,
        parameters: Mapping[str, torch.nn.Parameter],
        build: Callable[[Sequence[torch.nn.Parameter]], torch.optim.Optimizer],
        accelerator: Accelerator,
    ):
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise ConfigError(
                "accelerate is configured for FSDP 1: use version 2 (accelerate launch --use_fsdp --fsdp_version 2)"
            )
        self._policy, self._network = shardable(policy)
        self.accelerator = accelerator
        self._build = build
        share_first_weights(parameters)
        places = {id(parameter): place for place, parameter in self._network.named_parameters()}
        self._places = {name: places[id(parameter)] for name, parameter in parameters.items()}
        self._pending: dict[
            str, dict[str, Any]
        ] = {}  # the whole optimiser's state, to be spread or stored; the first process's
        self._units: list[Any] = []
        self.optimizer: Any = None

    @property
    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """As they are now: parts inside of a round's training, whole outside."""
        return {name: self._network.get_parameter(place) for name, place in self._places.items()}

    @contextlib.contextmanager
    def round(self) -> Iterator[None]:
        """Inside, a round is trained on and weights are spread; afterwards every process has all of them again."""
        if not self._units:
            self._spread()
        for unit in self._units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()
        self._policy.renew(self.parameters, sharded=True)
        yield
        # Not after an error: who still gets here would wait for whoever does not.
        self._pending = self._gathered_state()
        for unit in self._units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        self._policy.renew(self.parameters, sharded=False)

    def _spread(self) -> None:
        from torch.distributed.fsdp import FSDPModule

        if self.accelerator.is_fsdp2:
            set_plugin(self.accelerator.state.fsdp_plugin, self._network)
            optimizer = self._build(list(self.parameters.values()))
            _, self.optimizer = self.accelerator.prepare(self._network, optimizer)
        else:  # accelerate spreads weights on accelerators alone
            fully_shard_layers(self._network)
            self.optimizer = self.accelerator.prepare(self._build(list(self.parameters.values())))
        self._units = [module for module in self._network.modules() if isinstance(module, FSDPModule)]
        # By default a backward pass fetches ahead in the order of the last forward passes, which are each process's own.
        for before, unit in zip([self._units[0], *self._units], self._units, strict=False):
            unit.set_modules_to_backward_prefetch([before])
        self.load_optimizer_state(self._pending)

    @contextlib.contextmanager
    def accumulating(self) -> Iterator[None]:
        """Each backward pass gives every process its part of the sum: whole gradients would need the room of whole weights."""
        yield

    def losses(self, losses: Losses, part: Sequence[int]) -> torch.Tensor:
        """[b] losses of these positions, in the run's precision."""
        with self.accelerator.autocast():
            return losses(part)

    def any_failed(self, finite: Sequence[bool]) -> bool:
        """Whether any process has an item that failed in this pass; then all of them take the pass again."""
        self._flags = self._all_flags(finite)
        return not all(map(all, self._flags))

    def _all_flags(self, finite: Sequence[bool]) -> list[list[bool]]:
        flags: Any = self.accelerator.gather(torch.tensor([finite], device=self.accelerator.device))  # [processes, b]
        return flags.tolist()

    def sound_part(self, part: Sequence[int], finite: Sequence[bool]) -> tuple[Sequence[int], float]:
        """(positions to take again in place of these, their weight).

        Who has none left takes along another process's with a weight of 0, for a pass is one of all processes.
        """
        own = [position for position, good in zip(part, finite, strict=True) if good]
        if own or not any(map(any, self._flags)):
            return own, 1.0
        rank, count = self.accelerator.process_index, self.accelerator.num_processes
        other, place = next((r, j) for r, flags in enumerate(self._flags) for j, good in enumerate(flags) if good)
        return [part[place] - rank + other], 0.0 if count > 1 else 1.0

    def backward(self, loss: torch.Tensor) -> None:
        """Add a loss's gradient; the gradients of all processes are averaged, and should be summed."""
        self.accelerator.backward(loss * self.accelerator.num_processes)

    def complete(self) -> None:
        """Parameters that no item touched get a gradient of 0."""
        for parameter in self.parameters.values():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)

    def part_of(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """This process's part of a tensor that belongs to a parameter."""
        return _part_of(value, self.parameters[name])

    def summed(self, totals: torch.Tensor) -> torch.Tensor:
        """The sum of [n] figures over processes."""
        found: Any = self.accelerator.reduce(totals, reduction="sum")
        return found

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to this norm; the norm before, over all processes."""
        norm: Any = self.accelerator.clip_grad_norm_(list(self._network.parameters()), max_norm)
        return float(whole(norm))

    def _gathered_state(self) -> dict[str, dict[str, Any]]:
        """The optimiser's whole state, tensors on the CPU: of the first process alone, which writes it; all take part."""
        kept: dict[str, dict[str, Any]] = {}
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                found = whole(value).detach().cpu().clone() if isinstance(value, torch.Tensor) else value
                if self.accelerator.is_main_process:
                    kept.setdefault(name, {})[key] = found
        return kept

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """What the optimiser keeps, by parameter, whole, tensors on the CPU; empty but for the first process."""
        return self._pending

    def load_optimizer_state(self, kept: Mapping[str, Mapping[str, Any]]) -> None:
        """Take up a whole state; every process keeps its part. Before the first round it waits for the weights to be spread."""
        self._pending = {name: dict(state) for name, state in kept.items()}
        if not self._units:
            return
        own = self.parameters
        indexed = {
            index: {key: _part_of(value, own[name]) for key, value in kept[name].items()}
            for index, name in enumerate(own)
            if name in kept
        }
        self.optimizer.load_state_dict({"state": indexed, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _part_of(value: Any, parameter: torch.Tensor) -> Any:
    """This process's part of what belongs to a whole parameter; every process has the whole value."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(parameter, DTensor) or not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
        return value
    return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements, src_data_rank=None)


def units(network: torch.nn.Module) -> list[str]:
    """Names of the classes whose weights its library says belong together, of those that are there."""
    there = {type(layer).__name__ for layer in network.modules() if layer is not network}
    return [name for name in getattr(network, "_no_split_modules", None) or () if name in there]


def set_plugin(plugin: Any, network: torch.nn.Module) -> None:
    """Complete accelerate's settings of FSDP for this network.

    Weights stay float32 when they are gathered, for outside of training they are stored so; autocast gives the precision.
    """
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    plugin.mixed_precision_policy = None
    if plugin.auto_wrap_policy is None and (names := units(network)):
        plugin.auto_wrap_policy, plugin.transformer_cls_names_to_wrap = transformer_auto_wrap_policy, names


def fully_shard_layers(network: torch.nn.Module) -> None:
    """Spread a network over all processes, in place, in the units that its library says belong together."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    names = units(network)
    for layer in reversed(list(network.modules())):  # the inner ones first
        if layer is not network and type(layer).__name__ in names:
            fully_shard(layer, mesh=mesh)
    fully_shard(network, mesh=mesh)


def share_first_weights(parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Give every process the first one's weights, in place."""
    from accelerate.utils import broadcast

    for parameter in parameters.values():
        sent: Any = broadcast(parameter.data)
        parameter.data.copy_(sent)

"""What every stage of a training is: networks, optimisers and averages that make a state, batches, updates."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset, default_collate

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.distributed import Processes


@dataclass(frozen=True)
class Setup:
    """Where and how all stages of a training compute."""

    group: Processes = field(default_factory=Processes)
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    workers: int = 0
    """Processes that prepare batches; 0: this one."""
    precision: str = 'float32'
    """float32, or bfloat16 for mixed precision."""
    seed: int = 1
    """Of all that is random besides the pairs."""

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which networks run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == 'bfloat16')

    def place(self, *networks: nn.Module) -> None:
        """Put networks on the device, channels last, with the leading process's weights in all."""
        for network in networks:
            network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.group.share_weights(network.parameters())

    def sent(self, items: Iterable[Tensor]) -> list[Tensor]:
        """Return a batch on the device."""
        return [item.to(self.device, non_blocking=True) for item in items]

    def batches(self, items: Dataset[Any], first: int, steps: int, batch: int, workers: int | None = None) -> Any:
        """Return an iterator over the batches of steps ``first`` to ``steps`` - 1; that of step s depends on s alone.

        Item k is a function of k alone, for any k; ``batch`` counts those of all processes. Raises UserError where it
        cannot be divided evenly, and while iterating what an item raises.
        """
        workers = self.workers if workers is None else workers
        loader: DataLoader[Any] = DataLoader(
            _Batches(items, batch, self.group.share(batch)),
            batch_size=None,
            sampler=range(first, steps),
            num_workers=workers,
            worker_init_fn=_one_thread,
            # A forked worker would hang in OpenCV, whose threads do not survive the fork.
            multiprocessing_context='spawn' if workers else None,
            pin_memory=self.device.type == 'cuda' and torch.cuda.is_available(),
        )
        return _raised(loader)


class _Batches(Dataset[Any]):
    """Step by step this process's share of a batch; in its place a user's error, which would be a trace in a text."""

    def __init__(self, items: Dataset[Any], batch: int, share: range) -> None:
        self._items, self._batch, self._share = items, batch, share

    def __getitem__(self, step: int) -> Any:
        try:
            return default_collate([self._items[step * self._batch + place] for place in self._share])
        except UserError as error:
            return error


def _raised(loader: Iterable[Any]) -> Iterator[Any]:
    for found in loader:
        if isinstance(found, UserError):
            raise found
        yield found


def _one_thread(worker: int) -> None:
    import cv2

    # Workers are as many as there are cores to spare; each using all cores would be slower.
    cv2.setNumThreads(1)


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network that follows it as a moving average at each ``update_parameters``."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]


class Stage(ABC):
    """One stage of a training run; it names its networks (averages among them) and optimisers, which are its state."""

    name: str
    candidate: nn.Module | None = None
    """What is offered as the model, from the beginning on and evenly spread over the stage; None: nothing."""

    def __init__(self, setup: Setup, steps: int, batch: int, pairs: Dataset[Any]) -> None:
        self.setup = setup
        self.steps = steps
        self.batch = batch
        self.pairs = pairs
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    def begin(self) -> None:
        """Take what the stage before has left; called before the first step, and not by the dry run."""
        return

    def batches(self, first_step: int) -> Iterator[Any]:
        """Return an iterator over the batches from a step on."""
        found: Iterator[Any] = self.setup.batches(self.pairs, first_step, self.steps, self.batch)
        return found

    @abstractmethod
    def step(self, step: int, batch: Any) -> Mapping[str, float | Tensor]:
        """Make one update; return what to log."""

    def pictures(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return pictures (H, W, 3) RGB of what the stage does on its last batch."""
        return {}

    def finish(self) -> None:
        """Hand on what the next stage needs; called once, after the last step."""
        return

    def state_dict(self) -> dict[str, Any]:
        """Return all that going on needs."""
        return {
            'networks': {name: network.state_dict() for name, network in self.networks.items()},
            'optimisers': {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for name, network in self.networks.items():
            network.load_state_dict(state['networks'][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state['optimisers'][name])

    def gradients(self, loss: Tensor, player: str) -> list[nn.Parameter]:
        """Leave in a network's parameters the loss's gradient, averaged over the processes; return them."""
        self.optimisers[player].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        parameters = list(self.networks[player].parameters())
        self.setup.group.average_gradients(parameters)
        return parameters

    def update(self, loss: Tensor, player: str, largest_norm: float) -> Tensor:
        """Apply a loss's gradient, clipped by its norm; return the norm before."""
        norm = nn.utils.clip_grad_norm_(self.gradients(loss, player), largest_norm)
        self.optimisers[player].step()
        return norm

"""Training tasks so small that a run of them takes milliseconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from moving_object_detector.training.config import RunConfig
from moving_object_detector.training.loop import fit


class Numbers(Dataset):
    """Item k is k."""

    def __getitem__(self, index):
        return torch.tensor(index)


class Toy:
    """Fits parameters to numbers that are a function of the step, by Adam, which has a memory of its own."""

    candidate = None

    def __init__(self, name: str, steps: int, parameters: list[nn.Parameter], learning_rate: float = 0.1) -> None:
        self.name = name
        self.steps = steps
        self.parameters = parameters
        self.begun = self.finished = 0
        self.seen: list[int] = []
        self._optimiser = torch.optim.Adam(parameters, learning_rate)

    def batches(self, first_step):
        for step in range(first_step, self.steps):
            yield torch.from_numpy(np.random.default_rng((step, len(self.name))).normal(size=3))

    def begin(self):
        self.begun += 1

    def step(self, step, batch):
        self.seen.append(step)
        loss = torch.stack([(parameter - batch).square().sum() for parameter in self.parameters]).sum()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return {'loss': loss.detach()}

    def state_dict(self):
        return {'parameters': list(self.parameters), 'optimiser': self._optimiser.state_dict()}

    def load_state_dict(self, state):
        with torch.no_grad():
            for parameter, kept in zip(self.parameters, state['parameters'], strict=True):
                parameter.copy_(kept)
        self._optimiser.load_state_dict(state['optimiser'])

    def pictures(self):
        return {'grey': np.full((4, 4, 3), 128, np.uint8)}

    def finish(self):
        self.finished += 1
        with torch.no_grad():
            self.parameters[0].mul_(0.5)


def stages() -> list[Toy]:
    """Return three stages; the last one goes on from what both others have left, as the game does."""
    first, second = nn.Parameter(torch.zeros(3, dtype=torch.float64)), nn.Parameter(torch.ones(3, dtype=torch.float64))
    return [Toy('first', 5, [first]), Toy('second', 4, [second]), Toy('both', 5, [first, second])]


def run(out: Path) -> int:
    tasks = stages()
    fit(tasks, out, {'steps': 14}, RunConfig(checkpoint_every=2, picture_every=3))
    (out / 'result').write_text(repr([parameter.tolist() for parameter in tasks[-1].parameters]))
    return 0

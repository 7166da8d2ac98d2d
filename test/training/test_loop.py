from __future__ import annotations

import copy
import json
import re
import subprocess
import sys

import pytest
import torch
import toys
from torch import nn
from training_runs import HERE, environment

from moving_object_detector.common.errors import UserError
from moving_object_detector.training.config import RunConfig
from moving_object_detector.training.loop import (
    CHECKPOINT,
    candidate_names,
    candidate_steps,
    fit,
    read_log,
)

OPTIONS = {'game': {'steps': 10}, 'seed': 1}


def values(task):
    return [parameter.tolist() for parameter in task.parameters]


@pytest.mark.skipif(torch.cuda.is_available(), reason='PyTorch has no gradients in a fork where there is a GPU')
def test_killed_at_any_of_many_moments_a_run_ends_the_same(tmp_path):
    """Of dry run, stages, checkpoints, pictures and the changes of stage; weights and log are compared."""
    command = [sys.executable, str(HERE / 'kill_sweep.py'), str(tmp_path), '40', '--toy']
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert [kill for kill in report if kill['different']] == []
    assert len(report) == 40
    # None: before the first checkpoint.
    places = {kill['checkpoint'] and kill['checkpoint'][0] for kill in report}
    print(f'checkpoints when killed: {[kill["checkpoint"] for kill in report]}')
    assert places >= {None, 0, 1, 2}
    lines = read_log(tmp_path / 'whole' / 'log.jsonl')
    expected = [('first', k) for k in range(5)] + [('second', k) for k in range(4)] + [('both', k) for k in range(5)]
    assert [(line['stage'], line['step']) for line in lines] == expected


def test_a_stage_begins_with_what_the_one_before_has_handed_on(tmp_path):
    tasks = toys.stages()
    fit(tasks, tmp_path, OPTIONS, RunConfig())
    assert [task.finished for task in tasks] == [1, 1, 1]
    # The first two of each are the dry run's.
    assert [task.seen for task in tasks] == [[0, 1, *range(5)], [0, 1, *range(4)], [0, 1, *range(5)]]


def test_candidates_are_spread_evenly_from_before_a_stage_to_its_end():
    assert candidate_steps(600, 5) == [0, 120, 240, 360, 480, 600]
    assert candidate_steps(10, 3) == [0, 3, 7, 10]
    assert candidate_steps(7, 1) == [0, 7]
    assert candidate_steps(2, 5) == [0, 1, 2]


def test_candidates_come_at_their_steps_and_a_stage_begins_once(tmp_path):
    tasks, seen = toys.stages(), []
    tasks[1].candidate = nn.Linear(1, 1)

    def keep(name, network):
        seen.append((name, network))

    fit(tasks, tmp_path, OPTIONS, RunConfig(checkpoint_every=3), keep=keep, candidates=2)
    assert seen == [(f'second-{step:06d}', tasks[1].candidate) for step in (0, 2, 4)]
    assert candidate_names(tasks, 2) == [name for name, _ in seen]
    assert [task.begun for task in tasks] == [1, 1, 1]


def test_a_finished_run_is_not_repeated(tmp_path):
    tasks = toys.stages()
    fit(tasks, tmp_path, OPTIONS, RunConfig())
    log = (tmp_path / 'log.jsonl').read_bytes()
    again = toys.stages()
    fit(again, tmp_path, OPTIONS, RunConfig())
    # Also the networks of stages that no later one has.
    assert [values(task) for task in again] == [values(task) for task in tasks]
    assert all(task.seen == [] and task.finished == 0 for task in again)
    assert (tmp_path / 'log.jsonl').read_bytes() == log


class Spy(toys.Toy):
    """Notes its whole state when its first real batch is asked for."""

    def batches(self, first_step):
        self.states = [*getattr(self, 'states', []), copy.deepcopy(self.state_dict())]
        return super().batches(first_step)


def test_the_dry_run_puts_everything_back(tmp_path):
    parameter = nn.Parameter(torch.arange(3, dtype=torch.float64))
    task = Spy('spy', 3, [parameter])
    fit([task], tmp_path, OPTIONS, RunConfig())
    dry, real = task.states
    assert torch.equal(dry['parameters'][0], real['parameters'][0])
    assert dry['optimiser']['state'] == real['optimiser']['state'] == {}
    assert not (tmp_path / 'trial.pt').exists()
    # The log has the real steps alone.
    assert [line['step'] for line in read_log(tmp_path / 'log.jsonl')] == [0, 1, 2]


class Broken(toys.Toy):
    def __init__(self, *arguments, fails, error):
        super().__init__(*arguments)
        self._fails = fails
        self._error = error

    def step(self, step, batch):
        if step == self._fails:
            raise self._error
        return super().step(step, batch)


def test_a_stage_that_cannot_run_is_found_before_the_first_one_trains(tmp_path):
    first = toys.Toy('first', 50, [nn.Parameter(torch.zeros(3, dtype=torch.float64))])
    last = Broken('last', 5, [nn.Parameter(torch.zeros(3))], fails=1, error=UserError('frame 7 is damaged'))
    with pytest.raises(UserError, match='frame 7 is damaged'):
        fit([first, last], tmp_path, OPTIONS, RunConfig())
    assert first.seen == [0, 1]
    assert not (tmp_path / CHECKPOINT).exists()


class Diverging(toys.Toy):
    def step(self, step, batch):
        loss = super().step(step, batch)
        return loss | ({'area': float('nan')} if step == 7 else {'area': 0.5})


def test_divergence_is_told_and_the_checkpoint_before_it_kept(tmp_path):
    task = Diverging('game', 10, [nn.Parameter(torch.zeros(3, dtype=torch.float64))])
    with pytest.raises(UserError, match='game, step 7: area is nan'):
        fit([task], tmp_path, OPTIONS, RunConfig(checkpoint_every=3))
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert (state['stage'], state['step']) == (0, 6)
    assert all(tensor.isfinite().all() for tensor in state['states'][0]['parameters'])
    assert [line['step'] for line in read_log(tmp_path / 'log.jsonl')] == list(range(7))


class Rising(toys.Toy):
    """Its loss falls from 3 to 1 in 300 steps, and rises from step 500 on, to 3 and more."""

    def step(self, step, batch):
        super().step(step, batch)
        return {'loss': max(3 - step / 150, 1.0) + max(step - 500, 0) / 50}


@pytest.mark.parametrize('cut', [None, 450, 560])
def test_a_loss_that_rises_for_good_stops_the_run_also_one_that_was_resumed(cut, tmp_path):
    task = Rising('game', 900, [nn.Parameter(torch.zeros(3, dtype=torch.float64))])
    if cut is not None:
        killed = Broken(
            'game', 900, [nn.Parameter(torch.zeros(3, dtype=torch.float64))], fails=cut, error=KeyError('cut')
        )
        killed.step = lambda step, batch: Broken.step(killed, step, batch) and Rising.step(task, step, batch)
        with pytest.raises(KeyError):
            fit([killed], tmp_path, OPTIONS, RunConfig())
    with pytest.raises(UserError, match=r'game, step (\d+): the loss has doubled .* lower learning rate') as caught:
        fit([task], tmp_path, OPTIONS, RunConfig())
    # x steps after 500 the mean of the last 200 is 1 + x * x / (2 * 50 * 200), so it is 2 at x = 141.4; then 200 more.
    assert int(re.search(r'step (\d+)', str(caught.value))[1]) == pytest.approx(840, abs=2)


def test_a_loss_that_swings_or_is_nearly_none_goes_on(tmp_path):
    task = toys.Toy('game', 900, [nn.Parameter(torch.zeros(3, dtype=torch.float64))])
    # Swings, a bump of 150 steps that goes by, and at last nearly none.
    losses = [1.0 + (step // 40 % 2) if step < 400 else 4.0 if step < 550 else 1.0 for step in range(1000)]
    losses += [1e-6 * (1 + step % 300) for step in range(600)]
    losses += [0.0] * 250 + [1e-9] * 250
    task.steps = len(losses)
    task.step = lambda step, batch: {'loss': losses[step]}
    fit([task], tmp_path, OPTIONS, RunConfig())
    assert len(read_log(tmp_path / 'log.jsonl')) == len(losses)


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path):
    fit(toys.stages(), tmp_path, OPTIONS, RunConfig())
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(UserError, match=r'game\.steps 10 there and 20'):
        fit(toys.stages(), tmp_path, {'game': {'steps': 20}, 'seed': 1}, RunConfig())
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    # How often it is written does not matter.
    fit(toys.stages(), tmp_path, OPTIONS, RunConfig(checkpoint_every=7, picture_every=1))


def test_stages_without_steps_are_passed_over(tmp_path):
    tasks = toys.stages()
    tasks[1].steps = 0
    fit(tasks, tmp_path, OPTIONS, RunConfig())
    assert tasks[1].seen == []
    assert {line['stage'] for line in read_log(tmp_path / 'log.jsonl')} == {'first', 'both'}


def test_pictures_are_written_every_so_many_steps_and_at_the_end(tmp_path):
    fit(toys.stages()[:1], tmp_path, OPTIONS, RunConfig(picture_every=2))
    names = sorted(path.name for path in (tmp_path / 'pictures').iterdir())
    assert names == [f'first-grey-{step:06d}.png' for step in (2, 4, 5)]


def test_a_full_disk_is_told(tmp_path, full_disk):
    with full_disk(after=100), pytest.raises(UserError, match='cannot be written'):
        fit(toys.stages(), tmp_path, OPTIONS, RunConfig())

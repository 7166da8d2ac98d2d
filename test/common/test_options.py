"""Options: what they take, how they are named and set."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import attrgetter

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.options import Option, option, options_of, with_values


@dataclass(frozen=True)
class Lens:
    focus: float = option(2.0, 'Metres.', low=0.5, high=10.0, runtime=True)
    mode: str = option('auto', 'How.', choices=('auto', 'manual'))


@dataclass(frozen=True)
class Camera:
    rate: int = option(30, 'Frames per second.', low=1, high=120)
    name: str = option('', 'Free text.')
    on: bool = option(True, 'Whether.')
    lens: Lens = field(default_factory=Lens)
    serial: int = 7  # no option


def test_names_are_dotted_and_in_order():
    declared = list(options_of(Camera))
    assert [one.name for one in declared] == ['rate', 'name', 'on', 'lens.focus', 'lens.mode']
    assert declared[3] == Option('lens.focus', float, 2.0, 'Metres.', 0.5, 10.0, (), True)
    assert declared[4].choices == ('auto', 'manual')


@pytest.mark.parametrize(
    ('name', 'value', 'taken'),
    [
        ('rate', 1, 1),
        ('rate', 120, 120),
        ('lens.focus', 3, 3.0),  # YAML writes 3 for 3.0
        ('lens.focus', 0.5, 0.5),
        ('lens.mode', 'manual', 'manual'),
        ('name', 'a b', 'a b'),
        ('on', False, False),
    ],
)
def test_what_fits_is_taken(name, value, taken):
    config = with_values(Camera(), {name: value})
    assert attrgetter(name)(config) == taken
    assert type(attrgetter(name)(config)) is type(taken)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('rate', 0, 'rate is 0, but takes a whole number from 1 to 120'),
        ('rate', 121, 'rate is 121, but takes a whole number from 1 to 120'),
        ('rate', 30.0, 'rate is 30.0, but takes a whole number from 1 to 120'),
        ('rate', True, 'rate is True, but takes a whole number from 1 to 120'),
        ('rate', '30', "rate is '30', but takes a whole number from 1 to 120"),
        ('rate', [30], r'rate is \[30\], but takes a whole number'),
        ('rate', None, 'rate is None, but takes a whole number'),
        ('lens.focus', 0.49, r'lens\.focus is 0\.49, but takes a number from 0\.5 to 10'),
        ('lens.focus', float('nan'), 'lens.focus is nan, but takes a number from 0.5 to 10'),
        ('lens.focus', float('inf'), 'lens.focus is inf'),
        ('lens.focus', True, 'lens.focus is True'),
        ('lens.mode', 'off', "lens.mode is 'off', but takes one of auto, manual"),
        ('lens.mode', 1, 'lens.mode is 1, but takes one of auto, manual'),
        ('name', 5, 'name is 5, but takes a string'),
        ('on', 1, 'on is 1, but takes true or false'),
        ('on', 'true', "on is 'true', but takes true or false"),
        ('lens.fokus', 1.0, r"no option 'lens\.fokus'; .*lens\.focus"),
        ('lens', 1.0, "no option 'lens'"),
        ('serial', 8, "no option 'serial'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(name, value, message):
    with pytest.raises(UserError, match=message):
        with_values(Camera(), {name: value})


def test_the_original_stays_as_it_was():
    original = Camera()
    changed = with_values(original, {'lens.focus': 4.0, 'rate': 10})
    assert (changed.lens.focus, changed.rate, changed.lens.mode, changed.serial) == (4.0, 10, 'auto', 7)
    assert original == Camera()


def test_a_number_as_yaml_1_1_does_not_know_it_is_a_number():
    rate = Option('rate', float, 0.1, 'A rate.', 0, 1)
    assert rate.check('2e-4') == 2e-4
    with pytest.raises(UserError, match=r'rate is .much.'):
        rate.check('much')
    with pytest.raises(UserError, match=r'rate is 20\.0'):
        rate.check('2e1')


@dataclass(frozen=True)
class Pair:
    first: int = option(1, 'One.')
    second: int = option(0, 'The other.')

    def __post_init__(self):
        if not self.first + self.second:
            raise UserError('both are 0')


def test_what_a_group_checks_together_does_not_depend_on_the_order():
    for names in (('first', 'second'), ('second', 'first')):
        assert with_values(Pair(), {name: {'first': 0, 'second': 1}[name] for name in names}) == Pair(0, 1)

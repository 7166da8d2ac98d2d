from __future__ import annotations

from moving_object_detector.nodes.complaints import Complaints


def test_each_kind_is_said_once_in_an_interval_with_how_many_were_held_back():
    said, clock = [], [0.0]
    complain = Complaints(said.append, 5.0, now=lambda: clock[0])
    complain('step', 'step is 1')
    complain('step', 'step is 2')
    complain('data', 'data is short')
    clock[0] = 4.9
    complain('step', 'step is 3')
    assert said == ['step is 1', 'data is short']
    clock[0] = 5.0
    complain('step', 'step is 4')
    complain('step', 'step is 5')
    assert said[2:] == ['step is 4 (and 2 more like it)']
    clock[0] = 20.0
    complain('step', 'step is 6')
    complain('data', 'data is shorter')
    assert said[3:] == ['step is 6 (and 1 more like it)', 'data is shorter']


def test_a_reminder_does_not_count():
    said, clock = [], [0.0]
    complain = Complaints(said.append, 10.0, counted=False, now=lambda: clock[0])
    for second in range(21):
        clock[0] = float(second)
        complain('silence', f'no image for {second} s')
    assert said == ['no image for 0 s', 'no image for 10 s', 'no image for 20 s']


def test_one_can_be_said_by_what_another_makes_happen():
    said = []

    def say(text):
        said.append(text)
        if text == 'outer':
            complain('inner', 'inner')

    complain = Complaints(say, 5.0)
    complain('outer', 'outer')
    assert said == ['outer', 'inner']

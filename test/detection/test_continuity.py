from __future__ import annotations

from moving_object_detector.detection.continuity import Continuity, Step

SHAPE = (48, 64, 3)


def test_what_each_frame_is_to_the_one_before() -> None:
    stream = Continuity(max_gap=100)
    frames = [(0, SHAPE), (40, SHAPE), (140, SHAPE), (241, SHAPE), (241, SHAPE), (200, SHAPE), (210, (24, 64, 3))]
    assert [stream.follow(stamp, shape) for stamp, shape in frames] == [
        Step.CONTINUES,
        Step.CONTINUES,
        Step.CONTINUES,
        Step.AFTER_GAP,
        Step.REPEATS,
        Step.GOES_BACK,
        Step.NEW_SIZE,
    ]


def test_after_forgetting_any_frame_is_the_first() -> None:
    stream = Continuity(max_gap=100)
    stream.follow(1000, SHAPE)
    stream.forget()
    assert stream.follow(0, (8, 8, 3)) is Step.CONTINUES


def test_that_most_frames_start_anew_is_said() -> None:
    stream = Continuity(max_gap=10**9)
    for k in range(6):
        stream.follow(k * 1_500_000_000, SHAPE)
    assert stream.trouble.startswith('5 of 6 frames start the stream anew')
    for k in range(6):
        assert stream.trouble
        stream.follow(10**10 + k * 40_000_000, SHAPE)
    assert not stream.trouble

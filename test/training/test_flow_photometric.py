import numpy as np
import pytest

from moving_object_detector.training.flow_pairs import photographs, tone_table, turn_hue
from moving_object_detector.training.rendered import spoil


@pytest.fixture
def image():
    return np.random.default_rng(1).integers(60, 200, (40, 50, 3), dtype=np.uint8)


def test_no_strength_is_no_change():
    table = tone_table(np.random.default_rng(5), 0.0)
    assert np.array_equal(table, np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1))


def test_tones_keep_their_order_and_differ_between_draws():
    tables = [tone_table(np.random.default_rng(seed), 1.0).astype(int) for seed in range(20)]
    assert all((np.diff(table, axis=0) >= 0).all() for table in tables)
    assert len({table.tobytes() for table in tables}) == 20
    means = [table.mean() for table in tables]
    assert max(means) - min(means) > 40


def test_hue_turns_about_the_grey_axis(image):
    grey = np.repeat(image[:, :, :1], 3, 2)
    assert np.abs(turn_hue(grey, 1.0).astype(int) - grey).max() <= 1
    # A third of a turn makes red green, green blue and blue red.
    assert np.array_equal(turn_hue(image, 2 * np.pi / 3), image[:, :, [2, 0, 1]])


def test_the_sensor_adds_noise_but_no_light(image):
    changed = [spoil(image, np.random.default_rng(seed)).astype(int) for seed in range(12)]
    # But for a drift of the exposure, by a twentieth.
    assert all(abs(result.mean() / image.mean() - 1) < 0.06 for result in changed)
    assert max(np.abs(result - image).mean() for result in changed) > 2


def test_both_frames_share_the_camera(image):
    """The same frame twice: what the camera does to it differs far more between pairs than within one."""
    results = [photographs(image, image, np.random.default_rng(seed)) for seed in range(12)]
    means = np.array([[frame.mean((0, 1)) for frame in pair] for pair in results])
    within = np.abs(means[:, 0] - means[:, 1]).mean()
    between = np.abs(means[1:, 0] - means[:-1, 0]).mean()
    print(f'within {within:.1f}, between {between:.1f} levels')
    assert 0 < within < between / 3
    again = photographs(image, image, np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(again, results[3], strict=True))
    assert all(np.array_equal(image, image.copy()) for image in again)

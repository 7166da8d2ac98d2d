from __future__ import annotations

import logging
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from moving_object_detector.common import files
from moving_object_detector.common.errors import ImageError, UserError
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.media.sources import ImageFiles, read_image
from moving_object_detector.programs.commands import make_bag, make_video
from moving_object_detector.training import chunks, flow_cache
from moving_object_detector.training.chunks import CacheError, done_chunks
from moving_object_detector.training.flow_cache import CacheOptions, cached_clips

SIZE = (16, 32)
GAPS = (-2, -1, 1, 2)


def write_clip(folder, count, seed=0, size=(32, 64)):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    sheet = cv2.resize(rng.integers(0, 256, (12, 30, 3), np.uint8), (size[1] + 100, size[0]))
    for k in range(count):
        cv2.imwrite(str(folder / f'{k}.png'), sheet[:, k : k + size[1]])
    return folder


@pytest.fixture
def footage(tmp_path):
    """Clips of 9, 2 and 5 frames."""
    for seed, (name, count) in enumerate({'a': 9, 'b': 2, 'c': 5}.items()):
        write_clip(tmp_path / 'footage' / name, count, seed)
    return tmp_path / 'footage'


class NoFlow(DisFlow):
    """Nothing may be computed."""

    def features(self, image):
        raise AssertionError('computed again')


def build(footage, cache, *, backend=None, fingerprint='dis', size=SIZE, largest_gap=2):
    clips = find_clips([str(footage)], 'train')
    backend = backend or DisFlow((32, 64), 'ultrafast')
    return cached_clips(clips, cache, backend, fingerprint, CacheOptions(size, largest_gap, 4))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.glob('*.npy')}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two frames in a chunk, so that small clips have several."""
    monkeypatch.setattr(flow_cache, 'CHUNK', 2)


def test_what_is_cached_is_what_the_backend_says(footage, tmp_path):
    clips = build(footage, tmp_path / 'cache')
    assert [(clip.name, clip.frame_count) for clip in clips] == [('a', 9), ('b', 2), ('c', 5)]
    backend = DisFlow((32, 64), 'ultrafast')
    for clip in clips:
        assert (clip.size, clip.gaps) == (SIZE, GAPS)
        images = [read_image(footage / clip.name / f'{k}.png') for k in range(clip.frame_count)]
        features = [backend.features(image) for image in images]
        for index, image in enumerate(images):
            small = cv2.resize(image, (32, 16), interpolation=cv2.INTER_AREA)
            assert np.array_equal(clip.image(index), small)
            assert clip.neighbours(index) == tuple(g for g in GAPS if 0 <= index + g < clip.frame_count)
            for gap in clip.neighbours(index):
                flow = clip.flow(index, gap)
                assert (flow.shape, flow.dtype) == ((2, *SIZE), np.float32)
                expected = backend.estimate([features[index]], [features[index + gap]], SIZE)[0].numpy()
                assert np.allclose(flow, expected, rtol=2**-11, atol=2**-24)
    flow = np.load(clips[0].folder / '00001-flow.npy', mmap_mode='r')
    images = np.load(clips[0].folder / '00004-images.npy')
    assert (flow.shape, flow.dtype) == ((2, 4, 2, 16, 32), np.float16)
    assert (images.shape, images.dtype) == ((1, 16, 32, 3), np.uint8)
    assert np.array_equal(flow[1, 2], clips[0].flow(3, 1))


def test_a_clip_can_be_sent_to_another_process_and_holds_no_file(footage, tmp_path):
    clip = build(footage, tmp_path / 'cache')[0]
    before = len(list(Path('/proc/self/fd').iterdir()))
    flows = [clip.flow(index, 1) for index in range(8)]
    assert len(list(Path('/proc/self/fd').iterdir())) == before
    copy = pickle.loads(pickle.dumps(clip))
    assert np.array_equal(copy.flow(7, 1), flows[7])
    flows[7][:] = 0  # the caller's own
    assert copy.flow(7, 1).any()


def test_what_is_outside_the_clip(footage, tmp_path):
    clip = build(footage, tmp_path / 'cache')[2]
    for index, gap in ((-1, 1), (5, -1), (4, 1), (1, -2), (0, -1)):
        with pytest.raises(IndexError, match='of 5'):
            clip.flow(index, gap)
    for gap in (0, 3, -3):
        with pytest.raises(IndexError, match='c: '):
            clip.flow(2, gap)
    for call in (clip.image, clip.neighbours):
        with pytest.raises(IndexError, match='c: frame 5 of 5'):
            call(5)


def test_a_complete_cache_is_only_read(footage, tmp_path):
    cache = tmp_path / 'cache'
    first = build(footage, cache)

    def stamps():
        return {path: path.stat().st_mtime_ns for path in (cache, *cache.rglob('*'))}

    before = stamps()
    again = build(footage, cache, backend=NoFlow())
    assert again == first
    assert stamps() == before


def test_a_stale_cache_is_not_used(footage, tmp_path):
    cache = tmp_path / 'cache'
    original = build(footage, cache)
    folders = {original[0].folder}
    for changes in ({'fingerprint': 'dis fast'}, {'size': (16, 24)}, {'largest_gap': 1}):
        clip = build(footage, cache, **changes)[0]
        assert clip.folder not in folders
        folders.add(clip.folder)
    assert clip.gaps == (-1, 1)

    # One pixel of one file, its length and its times as before.
    path = footage / 'a' / '4.png'
    times = path.stat()
    image = cv2.imread(str(path))
    cv2.imwrite(str(path), 255 - image)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    changed = build(footage, cache)
    assert changed[0].folder not in folders
    assert not np.array_equal(changed[0].image(4), original[0].image(4))
    assert changed[1:] == original[1:]  # the other clips are as they were

    # The same files in another order.
    (footage / 'c' / '0.png').rename(footage / 'c' / '9.png')
    assert build(footage, cache)[2].folder != original[2].folder


def test_a_topic_is_part_of_the_key(footage, tmp_path):
    clip = find_clips([str(footage)], 'train')[0]
    clips = [replace(clip, topic=topic) for topic in 'xy']
    x, y = cached_clips(clips, tmp_path / 'cache', DisFlow((32, 64), 'ultrafast'), 'dis', CacheOptions(SIZE, 1))
    assert x.folder != y.folder


def damage_chunk(path, kind):
    data = bytearray(path.read_bytes())
    if kind == 'flipped bit':
        data[len(data) // 2] ^= 4
    elif kind == 'flipped bit in the header':
        data[20] ^= 1
    elif kind == 'cut':
        del data[-1]
    elif kind == 'longer':
        data += b'x'
    elif kind == 'empty':
        data = b''
    path.write_bytes(data)


@pytest.mark.parametrize('kind', ['flipped bit', 'flipped bit in the header', 'cut', 'longer', 'empty'])
@pytest.mark.parametrize('name', ['00001-flow.npy', '00003-images.npy', 'streams.npy'])
def test_damage_is_found_and_only_that_chunk_made_again(footage, tmp_path, caplog, monkeypatch, kind, name):
    clip = build(footage / 'a', tmp_path / 'cache')[0]
    expected = content(clip.folder)
    monkeypatch.setattr(chunks, '_checked', set())  # as another process
    damage_chunk(clip.folder / name, kind)
    if name != 'streams.npy':
        clip = build(footage / 'a', tmp_path / 'cache', backend=NoFlow())[0]
        number = int(name[:5])
        assert clip.image(2 * number + 2).any()
        assert clip.flow(0, 1).any()
        with pytest.raises(CacheError, match=rf'{name}.*damaged'):
            clip.flow(2 * number, 1) if 'flow' in name else clip.image(2 * number)
    backend = Counting()
    again = build(footage / 'a', tmp_path / 'cache', backend=backend)[0]
    assert again == clip
    assert content(clip.folder) == expected
    assert backend.pairs == {'00001-flow.npy': 8, '00003-images.npy': 7, 'streams.npy': 0}[name]
    assert 'computed again' in caplog.text


def test_many_damaged_files_cost_one_restart(tmp_path, monkeypatch):
    """As after a power failure."""
    starts = []

    def train():
        starts.append(0)
        done = chunks.done_chunks(tmp_path / 'cache', ('x',))
        if len(done) < 9:

            def make(found):
                return ((number, [np.full(1, number)]) for number in range(9) if number not in found)

            chunks.fill(tmp_path / 'cache', 'numbers', ('x',), 9, make)
        return [int(chunks.read_item(tmp_path / 'cache', number, 1, 'x')) for number in range(9)]

    assert chunks.repaired(train) == [*range(9)]
    monkeypatch.setattr(chunks, '_checked', set())  # as another process
    for number in range(1, 8):
        (tmp_path / 'cache' / f'{number:05d}-x.npy').write_bytes(b'')
    starts.clear()
    assert chunks.repaired(train) == [*range(9)]
    assert len(starts) == 2


def test_a_cache_that_is_removed_gives_a_sentence(footage, tmp_path):
    clip = build(footage / 'a', tmp_path / 'cache')[0]
    clip.flow(0, 1)
    shutil.rmtree(tmp_path / 'cache')
    for call in (lambda: clip.flow(0, 1), lambda: clip.image(5)):
        with pytest.raises(CacheError, match='gone'):
            call()


def test_a_crash_at_any_moment(footage, tmp_path, monkeypatch):
    """The folder as a kill would leave it, around every change of it; each goes on to the same bytes."""
    cache, moments = tmp_path / 'cache', []

    def watch(module, name):
        original = getattr(module, name)

        def watched(*arguments, **keywords):
            for act in (None, lambda: original(*arguments, **keywords), None):
                if act is None:
                    shutil.copytree(cache, tmp_path / f'moment{len(moments)}')
                    moments.append(len(moments))
                else:
                    result = act()
            return result

        monkeypatch.setattr(module, name, watched)

    watch(chunks, 'write_array')
    watch(files.Path, 'replace')
    whole = build(footage / 'c', cache)[0]
    monkeypatch.undo()
    monkeypatch.setattr(flow_cache, 'CHUNK', 2)
    assert len(moments) > 20
    expected = content(whole.folder)
    left = set()
    for moment in moments:
        folder = tmp_path / f'moment{moment}' / whole.folder.name
        left.add(len(done_chunks(folder, flow_cache.KINDS)))
        assert content(build(footage / 'c', folder.parent)[0].folder) == expected
    assert left == {0, 1, 2, 3}


CHILD = """
import os, signal, sys
from pathlib import Path
import cv2
from moving_object_detector.datasets.collection import find_clips
from moving_object_detector.flow.dis import DisFlow
from moving_object_detector.training import flow_cache
from moving_object_detector.training.flow_cache import CacheOptions, cached_clips

cv2.setNumThreads(1)
flow_cache.CHUNK = 2
calls = 0


class Backend(DisFlow):
    def estimate(self, *arguments):
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().estimate(*arguments)


clips = find_clips([sys.argv[1]], 'train')
cached_clips(clips, Path(sys.argv[2]), Backend((32, 64), 'ultrafast'), 'dis', CacheOptions((16, 32), 2, batch=4))
print(calls)
"""


def child(footage, cache, last_call):
    command = [sys.executable, '-c', CHILD, str(footage), str(cache), str(last_call)]
    environment = os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_where_it_was(footage, tmp_path, capfd):
    whole = build(footage, tmp_path / 'whole')
    process = child(footage, tmp_path / 'killed', 7)
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    first = tmp_path / 'killed' / whole[0].folder.name
    # Two frames have at most 6 or 8 pairs, in two calls of 4.
    assert done_chunks(first, flow_cache.KINDS) == {0, 1, 2}

    backend = Counting()
    resumed = build(footage, tmp_path / 'killed', backend=backend)
    assert backend.pairs == 2 * (8 + 7 + 1 + 4 + 3) - pairs_before(6)
    assert [content(clip.folder) for clip in resumed] == [content(clip.folder) for clip in whole]
    bar = capfd.readouterr().err
    assert '5/5' in bar
    assert 'flow of c' in bar


def pairs_before(frame):
    """Pairs of the first frames of clip a."""
    return sum(1 for index in range(frame) for gap in GAPS if 0 <= index + gap < 9)


class Counting(DisFlow):
    def __init__(self):
        super().__init__((32, 64), 'ultrafast')
        self.pairs = 0

    def estimate(self, sources, targets, size):
        self.pairs += len(sources)
        return super().estimate(sources, targets, size)


def test_two_processes_on_one_cache(footage, tmp_path):
    """Every clip is computed by one of them alone, and both end with all of them."""
    expected = [content(clip.folder) for clip in build(footage, tmp_path / 'alone')]
    processes = [child(footage, tmp_path / 'cache', 0) for _ in range(2)]
    calls = 0
    for process in processes:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        calls += int(out)
    assert calls == (2 + 2 + 2 + 2 + 1) + 1 + (2 + 2 + 1)
    clips = build(footage, tmp_path / 'cache', backend=NoFlow())
    assert [content(clip.folder) for clip in clips] == expected


def test_waiting_for_a_clip_that_another_process_has(footage, tmp_path):
    clips = build(footage, tmp_path / 'cache')
    (clips[0].folder / 'streams.npy').unlink()
    (clips[1].folder / 'streams.npy').unlink()
    code = (
        'import fcntl, sys, time; lock = open(sys.argv[1], "w"); fcntl.lockf(lock, fcntl.LOCK_EX)\n'
        'print("held", flush=True); time.sleep(2)'
    )
    holder = subprocess.Popen(
        [sys.executable, '-c', code, str(clips[0].folder / 'lock')], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == 'held\n'
    assert build(footage, tmp_path / 'cache') == clips
    assert holder.wait(timeout=60) == 0


def test_a_frame_that_cannot_be_used_is_named_and_the_rest_kept(footage, tmp_path):
    (footage / 'c' / '3.png').write_bytes(b'damaged')
    with pytest.raises(ImageError, match=r'c/3\.png'):
        build(footage, tmp_path / 'cache')
    cv2.imwrite(str(footage / 'c' / '3.png'), np.zeros((32, 64, 3), np.uint8))
    backend = Counting()
    build(footage, tmp_path / 'cache', backend=backend)
    assert backend.pairs == 2 * (4 + 3)  # of clip c alone
    (footage / 'c' / '4.png').unlink()
    (footage / 'c' / '4.png').mkdir()
    clips = find_clips([str(footage)], 'train')
    (footage / 'c' / '2.png').unlink()
    with pytest.raises(UserError, match=r'2\.png: .* No such file'):
        cached_clips(clips, tmp_path / 'cache', backend, 'dis', CacheOptions(SIZE, 2))


def test_frames_on_both_sides_of_a_gap_are_no_pair(tmp_path):
    """A bag of two folders, ten seconds apart, as make_bag writes it."""
    folders = [write_clip(tmp_path / name, 4, seed) for seed, name in enumerate('ab')]
    assert make_bag([*map(str, folders), str(tmp_path / 'bag')]) == 0
    clip = build(tmp_path / 'bag', tmp_path / 'cache')[0]
    assert clip.streams == (0, 0, 0, 0, 1, 1, 1, 1)
    assert [clip.neighbours(index) for index in (2, 3, 4, 5)] == [(-2, -1, 1), (-2, -1), (1, 2), (-1, 1, 2)]
    with pytest.raises(IndexError, match='frames 3 and 4'):
        clip.flow(3, 1)


def test_a_disk_that_becomes_full(footage, tmp_path, monkeypatch):
    """What was finished is kept, and the rest comes later."""
    written = []

    def write(path, array):
        if len(written) == 5:
            raise OSError(28, 'No space left on device')
        written.append(path)
        return original(path, array)

    original = chunks.write_array
    monkeypatch.setattr(chunks, 'write_array', write)
    with pytest.raises(UserError, match='No space left on device'):
        build(footage, tmp_path / 'cache')
    monkeypatch.setattr(chunks, 'write_array', original)
    backend = Counting()
    clips = build(footage, tmp_path / 'cache', backend=backend)
    assert backend.pairs == 2 * (8 + 7 + 1 + 4 + 3) - pairs_before(4)
    assert [content(clip.folder) for clip in clips] == [
        content(clip.folder) for clip in build(footage, tmp_path / 'other')
    ]


def test_a_folder_that_cannot_be_made(footage, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'flow of .*Not a directory'):
        build(footage, tmp_path / 'file' / 'cache')


def test_videos_and_bags(tmp_path):
    """A bag keeps the pixels, so its flow is the folder's; a video comes close."""
    folder = write_clip(tmp_path / 'frames', 6)
    assert make_bag([str(folder), str(tmp_path / 'bag')]) == 0
    assert make_video([str(folder), str(tmp_path / 'video.mp4')]) == 0
    roots = [str(tmp_path / name) for name in ('frames', 'bag', 'video.mp4')]
    backend = DisFlow((32, 64), 'ultrafast')
    clips = cached_clips(find_clips(roots, 'train'), tmp_path / 'c', backend, 'dis', CacheOptions(SIZE, 2))
    assert [clip.frame_count for clip in clips] == [6, 6, 6]
    frames, bag, video = ([clip.flow(index, 1) for index in range(5)] for clip in clips)
    assert np.array_equal(frames, bag)
    assert not np.array_equal(frames, video)
    assert clips[2].flow(2, 1)[0].mean() == pytest.approx(clips[0].flow(2, 1)[0].mean(), abs=0.2)


def test_a_video_that_ends_before_its_stated_count(tmp_path, caplog):
    """Its count is what the container claims; the cache has what could be decoded."""
    folder = tmp_path / 'frames'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(24):
        cv2.imwrite(str(folder / f'{k}.png'), rng.integers(0, 256, (64, 96, 3), np.uint8))
    video = tmp_path / 'clip.mp4'
    assert make_video([str(folder), str(video)]) == 0
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        (clip,) = build(video, tmp_path / 'cache')
    assert 2 <= clip.frame_count < 24
    assert 'of the 24 frames' in caplog.text
    assert build(video, tmp_path / 'cache', backend=NoFlow()) == [clip]


def test_clips_without_a_pair_are_left_out(footage, tmp_path, caplog):
    write_clip(footage / 'single', 2)
    clips = find_clips([str(footage)], 'train')
    clips[1] = replace(clips[1], files=clips[1].files[:1], source=partial(ImageFiles, 'b', clips[1].files[:1]))
    settings = (tmp_path / 'c', DisFlow((32, 64), 'ultrafast'), 'dis', CacheOptions(SIZE, 1))
    for _ in range(2):
        found = cached_clips(clips, *settings)
        assert [clip.name for clip in found] == ['a', 'c', 'single']
        assert 'b: no pair of frames in its 1' in caplog.text
        caplog.clear()
    with pytest.raises(UserError, match='no clip has two frames'):
        cached_clips(clips[1:2], *settings)


def test_a_clip_without_files_has_no_key(footage, tmp_path):
    clips = [replace(clip, files=()) for clip in find_clips([str(footage)], 'train')]
    with pytest.raises(UserError, match='a: no file'):
        cached_clips(clips, tmp_path / 'c', NoFlow((32, 64), 'ultrafast'), 'dis', CacheOptions(SIZE, 1))

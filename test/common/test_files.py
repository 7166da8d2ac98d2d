"""Files with several writers, killed writers and damaged neighbours; locks between processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moving_object_detector.common.errors import UserError
from moving_object_detector.common.files import atomic_file, file_hash, lock, read_file, write_atomically

SIZE = 200_000


def write_many(path, seed, end):
    count = 0
    while time.monotonic() < end:
        body = bytes([seed + count % 100]) * SIZE
        with atomic_file(path, durable=False) as file:
            for start in range(0, SIZE, 50_000):
                file.write(body[start : start + 50_000])
        count += 1


def test_a_reader_sees_one_whole_file_of_two_writers(tmp_path):
    path = tmp_path / 'results.json'
    write_atomically(path, bytes(SIZE))
    context = multiprocessing.get_context('fork')
    end = time.monotonic() + 2
    writers = [context.Process(target=write_many, args=(path, seed, end)) for seed in (1, 101)]
    for writer in writers:
        writer.start()
    reads = 0
    while time.monotonic() < end:
        data = path.read_bytes()
        assert len(data) == SIZE
        assert data == data[:1] * SIZE
        reads += 1
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reads > 10
    assert list(tmp_path.iterdir()) == [tmp_path / 'results.json']


def test_links_in_the_folder_are_not_followed(tmp_path):
    other = tmp_path / 'other'
    other.write_text('mine')
    path = tmp_path / 'file'
    (tmp_path / 'file.tmp').symlink_to(other)
    path.symlink_to(other)
    write_atomically(path, b'new')
    assert other.read_text() == 'mine'
    assert not path.is_symlink()
    assert path.read_bytes() == b'new'


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / 'file'
    write_atomically(path, b'old')

    def fail():
        with atomic_file(path) as file:
            file.write(b'half')
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_bytes() == b'old'
    assert list(tmp_path.iterdir()) == [tmp_path / 'file']


def test_the_mode_is_that_of_a_usual_file(tmp_path):
    write_atomically(tmp_path / 'file', b'')
    (tmp_path / 'usual').write_bytes(b'')
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == stat.S_IMODE((tmp_path / 'usual').stat().st_mode)


def test_what_a_killed_writer_left_goes_and_what_another_writes_stays(tmp_path):
    path = tmp_path / 'checkpoint.pt'
    code = (
        'import os, signal, sys; from pathlib import Path\n'
        'from moving_object_detector.common.files import atomic_file\n'
        'with atomic_file(Path(sys.argv[1])) as file:\n'
        '    file.write(b"half"); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    assert subprocess.run([sys.executable, '-c', code, str(path)], check=False).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert not path.exists()
    os.utime(left, (0, 0))
    with atomic_file(path) as file:
        file.write(b'first')
        (mine,) = tmp_path.iterdir()
        assert mine != left
        os.utime(mine, (0, 0))
        write_atomically(path, b'second')
        assert mine.exists()
    assert path.read_bytes() == b'first'
    assert list(tmp_path.iterdir()) == [tmp_path / 'checkpoint.pt']


HOLD = """
import sys, time
from pathlib import Path
from moving_object_detector.common.files import lock
with lock(Path(sys.argv[1]), 'it'):
    print('held', flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    path = tmp_path / 'lock'
    process = subprocess.Popen([sys.executable, '-c', HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == 'held\n'
    yield process, path
    process.kill()
    process.communicate()


def test_a_lock_names_who_holds_it_and_is_taken_over_after_a_kill(holder):
    process, path = holder
    holder = rf'the folder x is in use by process {process.pid} \(.*since 20'
    with pytest.raises(UserError, match=holder), lock(path, 'the folder x'):
        pass
    process.kill()
    process.wait()
    with lock(path, 'the folder x'):
        assert str(os.getpid()) in path.read_text()
        with pytest.raises(UserError, match='this process'), lock(path, 'it'):
            pass
    with lock(path, 'the folder x'):
        pass


def test_a_lock_is_not_held_by_children_of_a_killed_process(tmp_path):
    path = tmp_path / 'lock'
    fork = "import os\n    os.fork() or os.write(1, f'{os.getpid()} \\n'.encode())"
    code = HOLD.replace("print('held', flush=True)", fork)
    process = subprocess.Popen([sys.executable, '-c', code, str(path)], stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        os.kill(child, 0)
        with lock(path, 'it'):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_lock_can_be_waited_for(holder):
    process, path = holder
    process.send_signal(signal.SIGTERM)
    with lock(path, 'it', wait=True):
        assert process.wait(10) == -signal.SIGTERM


def test_a_lock_that_cannot_be_made(tmp_path):
    with pytest.raises(UserError, match='lock'), lock(tmp_path / 'none' / 'lock', 'it'):
        pass
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    with pytest.raises(UserError, match='lock'), lock(tmp_path / 'link', 'it'):
        pass


def test_reading_is_bounded_and_of_files_only(tmp_path):
    (tmp_path / 'file').write_bytes(b'12345')
    assert read_file(tmp_path / 'file', 5) == b'12345'
    assert file_hash(tmp_path / 'file') == hashlib.sha256(b'12345').hexdigest()
    with pytest.raises(OSError, match='larger than 4 bytes'):
        read_file(tmp_path / 'file', 4)
    # It states no size, as a file that grows states too small a one.
    with pytest.raises(OSError, match='larger than 4 bytes'):
        read_file(Path('/proc/self/status'), 4)
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path / 'pipe', tmp_path):
        with pytest.raises(OSError, match='not a file'):
            read_file(path, 5)
        with pytest.raises(OSError, match='not a file'):
            file_hash(path)

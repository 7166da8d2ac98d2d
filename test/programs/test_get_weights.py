"""Fetching from a server of this test, with stand-ins for the published files: nothing comes from elsewhere."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

import pytest
import torch

from moving_object_detector.common.files import fetched_weights
from moving_object_detector.networks.authors import load_flow_network
from moving_object_detector.networks.pwcnet import PWCNet
from moving_object_detector.networks.raft_small import RaftSmall
from moving_object_detector.programs import weights
from moving_object_detector.programs.commands import get_weights
from moving_object_detector.programs.weights import PUBLICATIONS, Publication


def torchvision_names(network):
    """RAFT-small's state as torchvision names it, written down from its source."""
    names = {}
    for ours, tensor in network.state_dict().items():
        encoder, *rest = ours.split('.')
        if encoder == 'update_block':
            part = {
                'encoder': 'motion_encoder',
                'gru': 'recurrent_block.convgru1',
                'flow_head': 'flow_head',
            }[rest[0]]
            layer = {'convc1': 'convcorr1.0', 'convf1': 'convflow1.0', 'convf2': 'convflow2.0', 'conv': 'conv.0'}
            name = ['update_block', part, layer.get(rest[1], rest[1]), rest[2]]
        else:
            name = [{'fnet': 'feature_encoder', 'cnet': 'context_encoder'}[encoder]]
            if rest[0] in ('conv1', 'conv2'):
                name += [{'conv1': 'convnormrelu.0', 'conv2': 'conv'}[rest[0]], rest[1]]
            elif rest[2] == 'downsample':
                name += rest
            else:
                name += [*rest[:2], f'convnormrelu{rest[2][-1]}.0', rest[3]]
        names['.'.join(name)] = tensor
    return names


class Server:
    """Serves bytes, as told: breaks off, sends elsewhere."""

    def __init__(self, content):
        self.content, self.requests = content, []
        self.breaks_after = self.elsewhere = self.says = None
        self.goes_on, self.ranges = True, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append(self.path)
                server.ranges.append(self.headers.get('Range'))
                if server.says:
                    # Whatever it likes, piece by piece.
                    with suppress(OSError):
                        for piece in server.says():
                            self.wfile.write(piece)
                            self.wfile.flush()
                    self.close_connection = True
                    return
                if server.elsewhere and self.path != '/there':
                    self.send_response(302)
                    self.send_header('Location', server.elsewhere)
                    self.end_headers()
                    return
                first = int((self.headers.get('Range') or 'bytes=0-')[6:-1]) if server.goes_on else 0
                if first >= len(server.content):
                    self.send_response(416)
                    self.send_header('Content-Length', '0')
                    self.end_headers()
                    return
                self.send_response(206 if first else 200)
                if first:
                    size = len(server.content)
                    self.send_header('Content-Range', f'bytes {first}-{size - 1}/{size}')
                self.send_header('Content-Length', str(len(server.content) - first))
                self.end_headers()
                self.wfile.write(server.content[first : server.breaks_after])

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.address = f'http://127.0.0.1:{self._server.server_port}'
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope='module')
def raft():
    torch.manual_seed(1)
    network = RaftSmall().eval()
    file = io.BytesIO()
    torch.save(torchvision_names(network), file)
    return network, file.getvalue()


@pytest.fixture
def server(raft, tmp_path, monkeypatch):
    """A server of stand-ins, whose hashes are the pinned ones."""
    monkeypatch.setenv('XDG_DATA_HOME', str(tmp_path))
    server = Server(raft[1])
    digest = f'sha256:{hashlib.sha256(raft[1]).hexdigest()[:8]}'
    monkeypatch.setitem(
        PUBLICATIONS, 'raft_small', Publication('RAFT', f'{server.address}/here', 'BSD-3-Clause', 4.0, digest)
    )
    yield server
    server.close()


def fetch():
    return get_weights(['raft_small', '--accept-licence'])


def test_from_the_address_to_the_network(server, raft, capsys):
    assert fetch() == 0
    out = capsys.readouterr().out
    assert out.index('BSD-3-Clause') < out.index('ready')
    assert server.address in out
    path = fetched_weights('raft_small')
    loaded = load_flow_network(path, 'raft_small')
    assert all(torch.equal(tensor, raft[0].state_dict()[name]) for name, tensor in loaded.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    # Again: they are there.
    assert fetch() == 0
    assert len(server.requests) == 1


def test_pwcnet_by_the_name_of_its_content_in_git(server, monkeypatch):
    torch.manual_seed(1)
    file = io.BytesIO()
    torch.save(PWCNet().state_dict(), file)
    server.content = file.getvalue()
    name = hashlib.sha1(f'blob {len(server.content)}\0'.encode() + server.content).hexdigest()
    published = Publication('PWC-Net', server.address, 'CC BY-NC-SA 4.0', 37.5, f'git:{name}')
    monkeypatch.setitem(PUBLICATIONS, 'pwcnet', published)
    assert get_weights(['pwcnet', '--accept-licence']) == 0
    assert load_flow_network(fetched_weights('pwcnet'), 'pwcnet')


def test_nothing_is_fetched_without_the_licence(server, monkeypatch, capsys):
    assert get_weights(['raft_small']) == 2
    assert '--accept-licence' in capsys.readouterr().err
    monkeypatch.setattr('sys.stdin', type('Terminal', (io.StringIO,), {'isatty': lambda _: True})('no\n'))
    assert get_weights(['raft_small']) == 2
    assert not server.requests
    monkeypatch.setattr('sys.stdin', type('Terminal', (io.StringIO,), {'isatty': lambda _: True})('yes\n'))
    assert get_weights(['raft_small']) == 0


@pytest.mark.parametrize('goes_on', [True, False])
def test_a_broken_transfer_goes_on_where_it_broke(server, capsys, goes_on):
    """Or starts anew with a server that cannot."""
    server.breaks_after, server.goes_on = 1_000_000, goes_on
    assert fetch() == 2
    assert '1000000 of' in capsys.readouterr().err
    path = fetched_weights('raft_small')
    assert not path.exists()
    server.breaks_after = None
    assert fetch() == 0
    assert server.ranges == [None, 'bytes=1000000-']
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_part_that_lacks_nothing_is_fetched_anew(server, capsys):
    """A server has no range to send then."""
    path = fetched_weights('raft_small')
    path.parent.mkdir(parents=True)
    path.with_suffix('.part').write_bytes(server.content)
    assert fetch() == 0
    assert path.exists()
    assert len(server.ranges) == 2


def test_a_part_of_something_else_is_found_by_the_hash_and_gone_the_next_time(server, capsys):
    path = fetched_weights('raft_small')
    path.parent.mkdir(parents=True)
    path.with_suffix('.part').write_bytes(bytes(500_000))
    assert fetch() == 2
    assert 'sha256:' in capsys.readouterr().err
    assert fetch() == 0


def test_another_file_is_refused(server, raft, capsys):
    server.content = raft[1][:-1] + b'x'
    assert fetch() == 2
    assert 'sha256:' in capsys.readouterr().err
    assert not fetched_weights('raft_small').exists()
    server.content = raft[1]
    assert fetch() == 0


def test_a_file_without_end_is_not_taken(server, monkeypatch, capsys):
    monkeypatch.setitem(PUBLICATIONS, 'raft_small', PUBLICATIONS['raft_small']._replace(megabytes=0.5))
    assert fetch() == 2
    assert 'larger than' in capsys.readouterr().err


def test_redirects_are_followed_but_not_to_another_kind_of_address(server, capsys):
    server.elsewhere = '/there'
    assert fetch() == 0
    fetched_weights('raft_small').unlink()
    for elsewhere in ('ftp://127.0.0.1/weights', 'file:///etc/passwd'):
        server.elsewhere = elsewhere
        assert fetch() == 2
        assert server.address in capsys.readouterr().err


def answer(head, *body):
    return lambda: [f'HTTP/1.1 {head}\r\n\r\n'.encode(), *body]


HOSTILE = {
    'nothing more': answer('416 Range Not Satisfiable'),
    'nothing': list,
    'no HTTP': lambda: [b'\x1b[2J\x00' * 1000],
    'a page': answer('200 OK\r\nContent-Type: text/html', b'<html>\x1b[2J log in here</html>'),
    'an empty file': answer('200 OK\r\nContent-Length: 0'),
    'a part': answer('206 Partial Content\r\nContent-Range: bytes 7-9/10', b'abc'),
    'a length without end': answer(f'200 OK\r\nContent-Length: {"9" * 5000}', b'abc'),
    'a length below nothing': answer('200 OK\r\nContent-Length: -5', b'abc'),
    'chunks that break': answer('200 OK\r\nTransfer-Encoding: chunked', b'5\r\nabc'),
    'chunks of no number': answer('200 OK\r\nTransfer-Encoding: chunked', b'zz\r\nabc'),
    'compressed': answer('200 OK\r\nContent-Encoding: gzip', b'\x1f\x8b' + bytes(99)),
    'a thousand headers': answer('200 OK' + '\r\nX: y' * 1000),
    'an endless header': answer('200 OK\r\nX: ' + 'y' * 10**6),
    'an endless body': lambda: itertools.chain([b'HTTP/1.1 200 OK\r\n\r\n'], itertools.repeat(bytes(1 << 20), 64)),
    **{
        f'to {place!r}': answer(f'302 Found\r\nLocation: {place}')
        for place in ('http://[', 'http://\xe9' + 'x' * 99, 'http://a:b:c/', '//', '', 'data:,a', '\x1b[2J', '/here')
    },
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_whatever_a_server_says_it_ends_in_a_sentence_and_leaves_nothing(server, capsys, kind):
    server.says = HOSTILE[kind]
    assert fetch() == 2
    said = capsys.readouterr().err
    assert server.address in said
    assert said.count('\n') == 1
    assert said[:-1].isprintable()
    assert not list(fetched_weights('raft_small').parent.glob('*'))


def test_a_server_that_drips_is_given_up(server, monkeypatch, capsys):
    monkeypatch.setattr(weights, 'FETCH_TIMEOUT', 0.5)

    def drip():
        yield b'HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n'
        for _ in range(100):
            time.sleep(0.1)
            yield b'x'

    server.says = drip
    started = time.monotonic()
    assert fetch() == 2
    assert time.monotonic() - started < 5
    assert 'bytes per second' in capsys.readouterr().err


@pytest.mark.parametrize('place', ['precious', '/dev/zero', 'nowhere/precious'])
def test_a_link_at_its_place_is_not_written_through(server, tmp_path, place):
    path = fetched_weights('raft_small')
    path.parent.mkdir(parents=True)
    (tmp_path / 'precious').write_text('kept')
    path.symlink_to(tmp_path / place)
    done = fetch()
    assert (tmp_path / 'precious').read_text() == 'kept'
    # What is there counts as fetched; a link to no file is replaced.
    assert done == 0
    assert path.is_symlink() == (place == 'precious')


def test_two_at_once(server):
    begun = threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        server.says = lambda: (begun.wait(30), *answer('200 OK', server.content)())[1:]
        assert list(pool.map(lambda _: fetch(), range(2))) == [0, 0]
    assert load_flow_network(fetched_weights('raft_small'), 'raft_small')


def test_nobody_there(server, monkeypatch, capsys):
    server.close()
    assert fetch() == 2
    assert server.address in capsys.readouterr().err


def test_what_is_pinned():
    assert PUBLICATIONS['raft_small'].digest == 'sha256:ad48884c'
    assert all(published.url.startswith('https://') for published in PUBLICATIONS.values())


@pytest.mark.skipif(
    find_spec('torchvision') is None, reason='torchvision is not installed here: names are from its source'
)
def test_flow_equals_torchvisions(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(2)
    theirs = raft_small().eval()
    torch.save(theirs.state_dict(), tmp_path / 'raft.pth')
    ours = load_flow_network(tmp_path / 'raft.pth', 'raft_small')
    first, second = torch.rand(2, 1, 3, 128, 160) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(first, second, 3), theirs(first, second, 3)[-1], atol=1e-3, rtol=1e-3)

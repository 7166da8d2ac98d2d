"""Fetching of weights that others published: only on command, after their licence was accepted, checked by a hash."""

from __future__ import annotations

import argparse
import errno
import hashlib
import http.client
import sys
import urllib.error
from pathlib import Path
from typing import IO, Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from moving_object_detector.common.errors import UserError, foreign
from moving_object_detector.common.files import fetched_weights, lock, make_folder
from moving_object_detector.networks.authors import from_pytorch, read_pytorch
from moving_object_detector.networks.weights import build_network, check_tensors, save_network

TIMEOUT: Final = 30.0
"""Seconds without a byte after which a transfer is given up."""
BLOCK: Final = 1 << 16


class Publication(NamedTuple):
    """Weights as somebody published them."""

    what: str
    url: str
    licence: str
    megabytes: float
    """About; nothing beyond twice of it is taken."""
    digest: str
    """``sha256:`` and its first digits, or ``git:`` and the name of the file's content in git."""


PUBLICATIONS: Final = {
    'raft_small': Publication(
        "RAFT-small, the authors' weights (Teed and Deng 2020) as torchvision distributes them (C_T_V1)",
        'https://download.pytorch.org/models/raft_small_C_T_V1-ad48884c.pth',
        'BSD-3-Clause: free use, with the notice of its authors',
        4.0,
        # All that torchvision states of it.
        'sha256:ad48884c',
    ),
    'pwcnet': Publication(
        "PWC-Net, the authors' weights (Sun et al. 2018)",
        'https://raw.githubusercontent.com/NVlabs/PWC-Net/07df6eb8b22b83f4a62d18231ae4ecf9cbecce05/PyTorch/pwc_net.pth.tar',
        'CC BY-NC-SA 4.0: not for commercial use',
        37.5,
        'git:27da4cc96929c0474f8083364712df3a1c50c52e',
    ),
}
"""By network; that these addresses answer has not been tried where this project is tested."""


class _SameSchemeOnly(HTTPRedirectHandler):
    """Follows redirects, but not from https to anything less."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: http.client.HTTPMessage, newurl: str
    ) -> Request | None:
        """Return the request that follows, or raise URLError."""
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            raise urllib.error.URLError(f'it leads to {foreign(newurl, 100)}')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def get_weights(arguments: argparse.Namespace) -> int:
    """Fetch the weights of one network, once their licence is accepted."""
    published, path = PUBLICATIONS[arguments.network], fetched_weights(arguments.network)
    print(
        f'{published.what}\nsource:  {published.url}\nlicence: {published.licence}\n'
        f'size:    about {published.megabytes} MB, kept as {path}',
        flush=True,
    )
    if path.is_file():
        print('they are there already; remove that file to fetch them again')
        return 0
    if not arguments.accept_licence:
        _ask()
    make_folder(path.parent)
    part = path.with_suffix('.part')
    with lock(path.with_suffix('.lock'), f'the transfer to {path}'):
        fetch(published, part)
        state = from_pytorch(read_pytorch(part), published.url)
        check_tensors(published.url, arguments.network, state)
        save_network(
            build_network(arguments.network, state), path, {'source': published.url, 'licence': published.licence}
        )
        part.unlink()
    print(f'{path}: ready; flow.backend={arguments.network} uses it')
    return 0


def _ask() -> None:
    if not sys.stdin.isatty():
        raise UserError('nobody is there to accept the licence; read it, then give --accept-licence')
    if input('Do you accept this licence? [yes/no] ').strip().lower() not in {'y', 'yes'}:
        raise UserError('the licence was not accepted, nothing was fetched')


def fetch(published: Publication, part: Path) -> None:
    """Fetch a file, going on where an earlier transfer ended.

    Args:
        published: What is fetched.
        part: Where; stays if the transfer breaks.

    Raises:
        UserError: It cannot be had or written, or is not what was published.

    """
    try:
        _transfer(published, part)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise UserError(f'{part} cannot be written: {error.strerror}; make room, then run it again') from error
        # What urllib raises is an OSError too.
        reason = foreign(getattr(error, 'reason', error), 200)
        raise UserError(f'{published.url}: {reason}; what came is kept, run it again to go on from there') from error
    except http.client.HTTPException as error:
        raise UserError(
            f'{published.url}: the transfer broke ({foreign(error, 100)}); run it again to go on'
        ) from error
    if not matches(part, published.digest):
        part.unlink()
        raise UserError(
            f'{published.url}: is not what was published there ({published.digest} is expected) and was removed; '
            'run it again, and if that does not help, report it'
        )


def _transfer(published: Publication, part: Path) -> None:
    most = int(2e6 * published.megabytes)
    have = part.stat().st_size if part.is_file() else 0
    request = Request(published.url, headers={'Range': f'bytes={have}-'} if have else {})
    try:
        response = build_opener(_SameSchemeOnly).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is no more of it
        raise
    with response:
        goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
        if goes_on and not response.headers.get('Content-Range', '').startswith(f'bytes {have}-'):
            raise UserError(f'{published.url}: the server sends another part than was asked for; remove {part}')
        expected = response.length
        with part.open('ab' if goes_on else 'wb') as file:
            came = 0
            while block := response.read(BLOCK):
                came += len(block)
                if file.tell() + len(block) > most:
                    raise UserError(f'{published.url}: is larger than {most / 1e6:.0f} MB, so it is not those weights')
                file.write(block)
        if expected is not None and came < expected:
            raise UserError(
                f'{published.url}: the transfer broke after {came} of {expected} bytes; run it again to go on'
            )


def matches(path: Path, digest: str) -> bool:
    """Return whether a file's content has a digest as :class:`Publication` writes it."""
    kind, _, wanted = digest.partition(':')
    content = path.read_bytes()
    if kind == 'git':
        # By SHA-1, as git names contents: for a file of a known commit there is no other.
        return hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False).hexdigest() == wanted
    return hashlib.sha256(content).hexdigest().startswith(wanted)

"""Weights of others: the paper's TensorFlow checkpoints imported, published flow networks fetched."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ModelError, UserError, foreign
from moving_object_detector.common.files import fetched_weights, write_atomically
from moving_object_detector.networks.authors import from_pytorch, from_tensorflow, read_pytorch
from moving_object_detector.networks.weights import build_network, check_tensors, save_network

FETCH_TIMEOUT: Final = 30.0
"""Seconds without a byte after which a transfer is given up."""
SLOWEST_FETCH: Final = 1000
"""Bytes a second that it has to bring on average."""
WORTH_KEEPING: Final = 1 << 16
"""Bytes of a broken transfer from which it is worth going on."""
TENSORFLOW_ENDING: Final = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


def _read_tensorflow(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """Read the floating-point variables of a TensorFlow checkpoint, whose path without ``.index`` is given."""
    # Else TensorFlow tells of processor features and missing GPUs before our one line.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f'reading {prefix} takes TensorFlow ({error}); run `pip install tensorflow`, which nothing else needs'
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name, kind in types.items() if kind.is_floating}
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(
            f'{prefix}: is no whole TensorFlow checkpoint ({error}); its .index and .data files belong together'
        ) from error


def _find_tensorflow(path: Path) -> Path:
    """Return the prefix of the TensorFlow checkpoint meant by it, by one of its files or by a folder."""
    found = sorted(path.glob('*.index')) if path.is_dir() else [path]
    if len(found) > 1:
        names = ', '.join(file.stem for file in found)
        raise UserError(f'{path}: has several TensorFlow checkpoints ({names}); give one of them')
    for file in found:
        for prefix in (file, file.with_name(TENSORFLOW_ENDING.sub('', file.name))):
            if prefix.with_name(f'{prefix.name}.index').is_file():
                return prefix
    raise UserError(
        f'{path}: no TensorFlow checkpoint is there; give model.best where model.best.index is. PyTorch files of '
        'PWC-Net and RAFT-small need no import: set flow.model to one'
    )


def import_weights(arguments: argparse.Namespace) -> int:
    """Convert and say what was written."""
    source, output, architecture = arguments.input, arguments.output, arguments.network
    if output.suffix != '.safetensors':
        raise UserError(f'{output}: model files end in .safetensors; give such a name as second argument')
    prefix = _find_tensorflow(source)
    state = from_tensorflow(_read_tensorflow(prefix), architecture, str(prefix))
    check_tensors(source, architecture, state)
    network = build_network(architecture, state)
    metadata = {'source': source.name, 'flow_input': arguments.flow_input, 'flow_backend': 'pwcnet'}
    metadata |= {'height': str(arguments.height), 'width': str(arguments.width)}
    save_network(network, output, metadata)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f'{output}: {architecture}, {count:,} parameters, {len(state)} tensors')
    return 0


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
    if not (arguments.accept_licence or sys.stdin.isatty()):
        raise UserError('nobody is there to accept the licence; read it, then give --accept-licence')
    if not arguments.accept_licence and input('Do you accept this licence? [yes/no] ').strip() not in {'y', 'yes'}:
        raise UserError('the licence was not accepted, nothing was fetched')
    part = path.with_suffix('.part')
    state = from_pytorch(read_pytorch(published.url, _fetch(published, part)), published.url)
    check_tensors(published.url, arguments.network, state)
    network = build_network(arguments.network, state)
    save_network(network, path, {'source': published.url, 'licence': published.licence})
    part.unlink(missing_ok=True)
    print(f'{path}: ready; flow.backend={arguments.network} uses it')
    return 0


def _receive(url: str, content: bytearray, most: int) -> None:
    """Add to ``content`` what is missing of it, until it is larger than ``most``; a server that cannot begins anew."""
    request = Request(url, headers={'Range': f'bytes={len(content)}-'} if content else {})
    with urlopen(request, timeout=FETCH_TIMEOUT) as response:
        if urlsplit(response.url).scheme != urlsplit(url).scheme:
            raise UserError(f'{url}: leads to {foreign(response.url, 100)}, which is not taken')
        if not response.headers.get('Content-Range', '').startswith(f'bytes {len(content)}-'):
            content.clear()
        had, started = len(content), time.monotonic()
        whole = had + (response.length or 0)
        while len(content) <= most and (block := response.read1(1 << 16)):
            content += block
            if time.monotonic() - started > FETCH_TIMEOUT + (len(content) - had) / SLOWEST_FETCH:
                raise TimeoutError(f'it sends less than {SLOWEST_FETCH} bytes a second')
        if len(content) < min(whole, most):
            raise ConnectionError(f'it broke off after {len(content)} of {whole} bytes')


def _fetch(published: Publication, part: Path) -> bytes:
    """Return what lies at its address, going on where an earlier transfer broke, as ``part`` has it.

    Raises UserError where it cannot be had, or is not what was published.
    """
    most = int(2e6 * published.megabytes)
    content = bytearray(part.read_bytes()[: most + 1] if part.is_file() else b'')
    part.unlink(missing_ok=True)
    whole = False
    try:
        _receive(published.url, content, most)
        whole = True
    except UserError:
        raise
    # What urllib raises is an OSError; ValueErrors are of addresses.
    except (OSError, HTTPException, ValueError) as error:
        reason = foreign(getattr(error, 'reason', error), 200)
        raise UserError(
            f'{published.url}: cannot be fetched ({reason}); run it again, it goes on from there'
        ) from error
    finally:
        # After Ctrl-C too.
        if not whole and len(content) >= WORTH_KEEPING:
            write_atomically(part, bytes(content))
    if len(content) > most:
        raise UserError(f'{published.url}: is larger than {most / 1e6:.0f} MB, so it is not those weights')
    kind, _, wanted = published.digest.partition(':')
    # By SHA-1, as git names contents: for a file of a known commit there is no other.
    git = hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False)
    found = git if kind == 'git' else hashlib.sha256(content)
    if not found.hexdigest().startswith(wanted):
        raise UserError(
            f'{published.url}: is not what was published there ({published.digest} is expected); run it again, and if '
            'that does not help, report it'
        )
    return bytes(content)

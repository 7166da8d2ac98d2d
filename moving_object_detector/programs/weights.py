"""The programs ``convert_weights`` (TensorFlow checkpoints of the paper) and ``get_weights`` (published networks)."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import time
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Final, NamedTuple
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import NDArray

from moving_object_detector.common.errors import ModelError, UserError, foreign
from moving_object_detector.common.files import fetched_weights, write_atomically
from moving_object_detector.networks.authors import from_pytorch, from_tensorflow, read_pytorch
from moving_object_detector.networks.weights import build_network, check_tensors, save_network

FETCH_TIMEOUT: Final = 30.0
"""Seconds without data after which a download is aborted."""
SLOWEST_FETCH: Final = 1000
"""Least average bytes per second of a download."""
WORTH_KEEPING: Final = 1 << 16
"""Least bytes of an interrupted download to keep for resuming."""
TENSORFLOW_ENDING: Final = re.compile(r'\.(index|meta|data-\d{5}-of-\d{5})$')


def _read_tensorflow(prefix: Path) -> dict[str, NDArray[np.float32]]:
    """Read the floating-point variables of a TensorFlow checkpoint; ``prefix`` is its path without ``.index``."""
    # Silences TensorFlow's messages about CPU features and missing GPUs.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    try:
        import tensorflow as tf
    except ImportError as error:
        raise UserError(
            f'reading {prefix} needs TensorFlow ({error}); run `pip install tensorflow` (only this program needs it)'
        ) from error
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        types = reader.get_variable_to_dtype_map()
        return {name: reader.get_tensor(name) for name, kind in types.items() if kind.is_floating}
    except (tf.errors.OpError, IndexError, ValueError, RuntimeError) as error:
        raise ModelError(
            f'{prefix}: is no complete TensorFlow checkpoint ({error}); copy its .index and .data files together'
        ) from error


def _find_tensorflow(path: Path) -> Path:
    """Return the prefix of a TensorFlow checkpoint, given the prefix, one of its files or its folder."""
    found = sorted(path.glob('*.index')) if path.is_dir() else [path]
    if len(found) > 1:
        names = ', '.join(file.stem for file in found)
        raise UserError(f'{path}: has several TensorFlow checkpoints ({names}); give one of them')
    for file in found:
        for prefix in (file, file.with_name(TENSORFLOW_ENDING.sub('', file.name))):
            if prefix.with_name(f'{prefix.name}.index').is_file():
                return prefix
    raise UserError(
        f'{path}: no TensorFlow checkpoint found; give its prefix, such as model.best for model.best.index. PyTorch '
        'files of PWC-Net and RAFT-small need no conversion: set flow.model to the file'
    )


def import_weights(arguments: argparse.Namespace) -> int:
    """Run the program ``convert_weights``."""
    source, output, architecture = arguments.input, arguments.output, arguments.network
    if output.suffix != '.safetensors':
        raise UserError(f'{output}: model files end in .safetensors; give such a name as the second argument')
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
    """Published weights: where they are, under which licence, and how to verify them."""

    what: str
    url: str
    licence: str
    megabytes: float
    """Approximate size; a download of more than twice this is refused."""
    digest: str
    """``sha256:`` and the first digits of the hash, or ``git:`` and the git blob hash."""


PUBLICATIONS: Final = {
    'raft_small': Publication(
        "RAFT-small, the authors' weights (Teed and Deng 2020) as torchvision distributes them (C_T_V1)",
        'https://download.pytorch.org/models/raft_small_C_T_V1-ad48884c.pth',
        'BSD-3-Clause: free use, with the notice of its authors',
        4.0,
        # torchvision states only these digits.
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
"""By network; the project's tests do not access these addresses."""


def get_weights(arguments: argparse.Namespace) -> int:
    """Run the program ``get_weights``: download the weights of one network once their licence is accepted."""
    published, path = PUBLICATIONS[arguments.network], fetched_weights(arguments.network)
    print(
        f'{published.what}\nsource:  {published.url}\nlicence: {published.licence}\n'
        f'size:    about {published.megabytes} MB, kept as {path}',
        flush=True,
    )
    if path.is_file():
        print('already downloaded; remove that file to download it again')
        return 0
    if not (arguments.accept_licence or sys.stdin.isatty()):
        raise UserError('cannot ask for the licence without a terminal; read it, then give --accept-licence')
    if not arguments.accept_licence and input('Do you accept this licence? [yes/no] ').strip() not in {'y', 'yes'}:
        raise UserError('the licence was not accepted, so nothing was downloaded')
    part = path.with_suffix('.part')
    state = from_pytorch(read_pytorch(published.url, _fetch(published, part)), published.url)
    check_tensors(published.url, arguments.network, state)
    network = build_network(arguments.network, state)
    save_network(network, path, {'source': published.url, 'licence': published.licence})
    part.unlink(missing_ok=True)
    print(f'{path}: ready; flow.backend={arguments.network} uses it')
    return 0


def _receive(url: str, content: bytearray, most: int) -> None:
    """Append the rest of the file to ``content``, up to ``most`` bytes; starts over if the server cannot resume."""
    request = Request(url, headers={'Range': f'bytes={len(content)}-'} if content else {})
    with urlopen(request, timeout=FETCH_TIMEOUT) as response:
        if urlsplit(response.url).scheme != urlsplit(url).scheme:
            raise UserError(f'{url}: redirects to {foreign(response.url, 100)}, with another protocol; refused')
        if not response.headers.get('Content-Range', '').startswith(f'bytes {len(content)}-'):
            content.clear()
        had, started = len(content), time.monotonic()
        whole = had + (response.length or 0)
        while len(content) <= most and (block := response.read1(1 << 16)):
            content += block
            if time.monotonic() - started > FETCH_TIMEOUT + (len(content) - had) / SLOWEST_FETCH:
                raise TimeoutError(f'slower than {SLOWEST_FETCH} bytes per second')
        if len(content) < min(whole, most):
            raise ConnectionError(f'the connection broke after {len(content)} of {whole} bytes')


def _fetch(published: Publication, part: Path) -> bytes:
    """Download and verify published weights, resuming an interrupted download kept in ``part``.

    Raises UserError if the download fails or its digest is wrong.
    """
    most = int(2e6 * published.megabytes)
    content = bytearray(part.read_bytes()[: most + 1] if part.is_file() else b'')
    part.unlink(missing_ok=True)
    whole = False
    try:
        try:
            _receive(published.url, content, most)
        except HTTPError as error:
            if error.code != HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            # Nothing is missing, or the part is of another file.
            content.clear()
            _receive(published.url, content, most)
        whole = True
    except UserError:
        raise
    # urllib raises OSErrors, and ValueErrors for malformed addresses.
    except (OSError, HTTPException, ValueError) as error:
        reason = foreign(getattr(error, 'reason', error), 200)
        raise UserError(f'{published.url}: download failed ({reason}); run this again to resume it') from error
    finally:
        # Also after Ctrl-C.
        if not whole and len(content) >= WORTH_KEEPING:
            write_atomically(part, bytes(content))
    if len(content) > most:
        raise UserError(f'{published.url}: is larger than {most / 1e6:.0f} MB, so these are not the published weights')
    kind, _, wanted = published.digest.partition(':')
    # SHA-1: a file of a known commit has only its git blob hash.
    git = hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False)
    found = git if kind == 'git' else hashlib.sha256(content)
    if not found.hexdigest().startswith(wanted):
        raise UserError(
            f'{published.url}: the file is not the published one (expected {published.digest}); run this again, and '
            'report it if that does not help'
        )
    return bytes(content)

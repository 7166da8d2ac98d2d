"""Files that come with the package."""

from __future__ import annotations

from pathlib import Path

from moving_object_detector.errors import ModelError

PACKAGE = 'moving_object_detector'
DEFAULT_MODEL = 'generator.safetensors'
DEFAULT_INPAINTER = 'inpainter.safetensors'


def share_folder() -> Path:
    """Return the folder with ``config/``, ``launch/`` and ``models/``: the source tree's, else the installed one.

    Both hold the package's ``package.xml``, by which they are told from any other folder with a ``models/``.

    Raises:
        ModelError: Neither is there.

    """
    package = Path(__file__).resolve().parent
    candidates = [package.parent]
    # <prefix>/lib/pythonX.Y/site-packages/moving_object_detector -> <prefix>/share/moving_object_detector
    candidates += [parent / 'share' / PACKAGE for parent in package.parents[:6]]
    for folder in candidates:
        if (folder / 'models').is_dir() and (folder / 'package.xml').is_file():
            return folder
    raise ModelError(f'the folder share/{PACKAGE} with models/ is missing beside {package}; install the package again')


def generator_path(model: str) -> Path:
    """Return the generator's file that the option ``model`` names; empty: the one that comes with the package."""
    return Path(model).expanduser() if model else default_model()


def default_inpainter() -> Path:
    """Return the inpainter that comes with the package."""
    return share_folder() / 'models' / DEFAULT_INPAINTER


def default_model() -> Path:
    """Return the generator that comes with the package."""
    return share_folder() / 'models' / DEFAULT_MODEL

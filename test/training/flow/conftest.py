from __future__ import annotations

import pytest
import torch


@pytest.fixture
def one_thread():
    """Compute in one thread, so that the same operations give the same bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def few_textures(monkeypatch):
    """Draw from four textures; making all of them takes long."""
    monkeypatch.setattr('moving_object_detector.synthetic.textures.POOL', 4)

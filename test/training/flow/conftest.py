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

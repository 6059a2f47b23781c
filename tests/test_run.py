"""After the notebook was run: what the run took. (pytest runs this after the notebook.)"""

import pytest
from conftest import peak_memory


def test_peak_memory_of_the_kernel(request):
    """Students have laptops with 8 GiB and a browser open."""
    if not any(item.path.suffix == ".ipynb" for item in request.session.items):
        pytest.skip("the notebook was not run")
    assert 0.3 < peak_memory() <= 2

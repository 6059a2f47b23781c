"""After the notebook was run: what the run took. (pytest runs this after the notebook.)"""

import os

import pytest


def test_peak_memory_of_the_kernel(request, capsys):
    """Students have laptops with 8 GiB and a browser open."""
    cells = any(item.path.suffix == ".ipynb" for item in request.session.items)
    if "PYTEST_XDIST_WORKER" in os.environ or not cells:
        pytest.skip("the notebook was not run by this process; .ci/full_check measures")
    peak = request.config.pluginmanager.get_plugin("notebook-run").peak_memory
    with capsys.disabled():
        print(f"\npeak memory of the notebook: {peak:.2f} GiB")
    assert 0.3 < peak <= 2

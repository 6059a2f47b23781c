"""After the notebook was run: what the run took. (pytest runs this after the notebook.)"""

import pytest


def test_peak_memory_of_the_kernel(request, capsys):
    """Students have laptops with 8 GiB and a browser open."""
    if not any(item.path.suffix == ".ipynb" for item in request.session.items):
        pytest.skip("the notebook was not run")
    peak = request.config.pluginmanager.get_plugin("notebook-run").peak_memory
    with capsys.disabled():
        print(f"\npeak memory of the notebook: {peak:.2f} GiB")
    assert 0.3 < peak <= 2.4

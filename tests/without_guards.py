"""Takes the notebook's guards out, one at a time, and checks that a test fails each time.

    python tests/without_guards.py

Each guard is a piece of one of the notebook's cells. In a copy of the notebook it is
replaced by what a notebook without it would have, and that fault's tests are run there.
A guard whose tests still pass is not tested: this ends with an error and names it.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from notebook_cells import NOTEBOOK, code_cells_by_id

ROOT = NOTEBOOK.parent

# What is guarded against: (cell, the guard, what stands there without it, its tests)
GUARDS = {
    "a silent mirror": ("fetch", "timeout=patience", "timeout=99", "silent"),
    "a slow mirror": (
        "fetch",
        "file.tell() < speed * (time.time() - begin - patience)",
        "False",
        "drip",
    ),
    "another file": ("verified", "not is_cifar10_archive(part)", "False", "bad_mirror"),
    "a download that is left half-done": (
        "verified",
        "part.unlink(missing_ok=True)",
        "pass",
        "bad_mirror",
    ),
    "a wrong file in the cache": (
        "fill-cache",
        " and is_cifar10_archive(archive)",
        "",
        "wrong_file_in_the_cache",
    ),
    "a mirror that fails": (
        "fill-cache",
        "except Exception as error:",
        "except ZeroDivisionError as error:",
        "bad_mirror",
    ),
    "another notebook in the way": ("load-cached", "tries=5", "tries=1", "in_the_way"),
    "no network": (
        "load-data",
        "except OSError as error:",
        "except ZeroDivisionError as error:",
        "digits",
    ),
    "digits where CIFAR-10 is needed": (
        "load-data",
        'os.environ.get("REQUIRE_CIFAR10") == "1"',
        "False",
        "digits_are_an_error",
    ),
    "a pickle": ("load-npz", "allow_pickle=False", "allow_pickle=True", "pickled"),
    "a copy that cannot be read": (
        "load-npz",
        "except Exception as error:",
        "except ZeroDivisionError as error:",
        "cannot_be_read",
    ),
    "other shapes": (
        "load-npz",
        "x.shape == (count, 32, 32, 3) and y.shape == (count, 1)",
        "True",
        "other_arrays",
    ),
    "other types": ("load-npz", " or x.dtype != np.uint8", "", "other_arrays"),
    "labels over 9": ("load-npz", " or y.max() > 9", "", "other_arrays"),
    "a setting out of range": (
        "check-setting",
        "low <= number <= high and ",
        "",
        "setting",
    ),
    "a broken number": ("check-setting", " and number == float(value)", "", "setting"),
    "a setting that is no number": (
        "check-setting",
        "except (TypeError, ValueError, OverflowError):",
        "except ZeroDivisionError:",
        "setting",
    ),
    "a misspelt setting": (
        "use-settings",
        "if similar :=",
        "if False and",
        "misspelt",
    ),
    "a loss that is no number": (
        "watch",
        'not np.isfinite(logs["loss"])',
        "False",
        "no_number",
    ),
    "a network that learns nothing": (
        "watch",
        'logs["accuracy"] < 0.15',
        "False",
        "learns_nothing",
    ),
    "a kernel that dies": ("fit", ", backup(model)", "", "goes_on"),
    "a backup of other settings": ("backup", "(settings, shapes,", "(shapes,", "mixed_in"),
    "a backup of another network": (
        "backup",
        "(settings, shapes,",
        "(settings,",
        "mixed_in",
    ),
    "a backup of another optimizer": (
        "backup",
        "shapes, optimizer)",
        "shapes)",
        "mixed_in",
    ),
    "a file that is no picture": (
        "load-picture",
        "except Exception as error:",
        "except ZeroDivisionError as error:",
        "no_picture",
    ),
    "a rotated photograph": (
        "load-picture",
        "ImageOps.exif_transpose(file)",
        "file.copy()",
        "upright",
    ),
    "16 bits": (
        "load-picture",
        'picture.mode.startswith("I")',
        "False",
        "sixteen or of_any_kind",
    ),
    "transparency": (
        "load-picture",
        "Image.alpha_composite(white, picture.convert(",
        "(lambda picture: picture)(picture.convert(",
        "transparent",
    ),
}


def tests_fail_without(cell, guard, without, tests):
    """Whether at least one of the tests (pytest's -k) fails once the guard is taken out."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT / "tests", copy / "tests")
        shutil.copy(ROOT / ".pytest.ini", copy)
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        source = code_cells_by_id(notebook)[cell].source
        assert guard in source, f"{guard} does not stand in the cell {cell}"
        changed = source.replace(guard, without)
        compile(changed, cell, "exec")  # what fails must be a test, not Python
        code_cells_by_id(notebook)[cell].source = changed
        nbformat.write(notebook, copy / NOTEBOOK.name)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-k", tests]
        files = ["tests/test_faults.py", "tests/test_data.py"]
        run = subprocess.run([*command, *files], cwd=copy, capture_output=True, text=True)
    if run.returncode not in (0, 1):  # neither passed nor failed: nothing was tested
        raise RuntimeError(run.stdout + run.stderr)
    return run.returncode == 1


def main():
    untested = []
    for what, guard in GUARDS.items():
        failed = tests_fail_without(*guard)
        print("a test fails without the guard" if failed else "NOT TESTED", "|", what)
        untested += [] if failed else [what]
    if untested:
        sys.exit(f"no test noticed that these are gone: {', '.join(untested)}")


if __name__ == "__main__":
    main()

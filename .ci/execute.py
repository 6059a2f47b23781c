"""Settings of `jupyter nbconvert --execute`: says where it is, and stores no noise.

What it says goes to standard error, as all that nbconvert says, so `--stdout` still gives
a notebook.
"""

import re
import sys
import tempfile
from pathlib import Path

from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbconvert.preprocessors import CoalesceStreamsPreprocessor, ExecutePreprocessor

c = get_config()  # noqa: F821


def say(text):
    """Prints a line at once."""
    print(text, file=sys.stderr, flush=True)


def printed(notebook, name):
    """Returns the lines that a cell printed; none if there is no such cell."""
    cells = [cell for cell in notebook.cells if cell.get("id") == name]
    outputs = [out for cell in cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs).splitlines()


class TellingExecutor(ExecutePreprocessor):
    """Runs a notebook with a line a section and a line an epoch, and says what came out."""

    def preprocess(self, notebook, resources=None, km=None):
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as self.log_of_kernel:
            try:
                notebook, resources = super().preprocess(notebook, resources, km)
            except DeadKernelError:
                self.log_of_kernel.seek(0)
                say(self.log_of_kernel.read())
                raise
            except CellExecutionError as problem:  # what the notebook says itself is enough
                if "\n" in problem.evalue or len(problem.evalue) > 350:
                    raise
                sys.exit(f"{problem.ename}: {problem.evalue}")
        found = [line for line in printed(notebook, "identify") if "CIFAR-10" in line][-1:]
        epochs = sum("val_loss" in line for line in printed(notebook, "fit"))
        found += [f"epochs: {epochs}"] if epochs else []
        found += [line for line in printed(notebook, "evaluate") if "test accuracy" in line]
        app = self.config.NbConvertApp
        if "StdoutWriter" not in app.get("writer_class", ""):
            named = "output_base" in app or not app.get("use_output_suffix", True)
            name = Path(resources.get("unique_key", "notebook")).name
            found.append(f"executed notebook: {name}{'' if named else '.nbconvert'}.ipynb")
        if found:
            say("; ".join(found))
        return notebook, resources

    def start_new_kernel(self, **options):
        """Starts it with a log of its own: TensorFlow's start-up is said to nobody."""
        super().start_new_kernel(stderr=self.log_of_kernel, **options)

    def preprocess_cell(self, cell, resources, index):
        self.line = ""  # what was printed since the last line's end
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            say(cell.source.splitlines()[0].strip("# "))
        return super().preprocess_cell(cell, resources, index)

    def process_message(self, message, cell, cell_index):
        if message["msg_type"] == "stream":
            *lines, self.line = (self.line + message["content"]["text"]).split("\n")
            for line in lines:
                self.say_epoch(line)
        return super().process_message(message, cell, cell_index)

    def say_epoch(self, line):
        """Says that an epoch begins, and how it ended, as Keras does without the bar."""
        line = re.sub(r"\x1b\[\d+m|━", "", line.rpartition("\r")[2])
        if line.startswith("Epoch ") or "val_loss" in line:
            say("    " + " ".join(line.split()))


# In the place of nbconvert's own, so `--execute` and its settings hold for this one.
c.NotebookExporter.default_preprocessors = [TellingExecutor]
# A cell's printed lines as one output, and of a bar that moves only the last state.
c.NotebookExporter.preprocessors = [CoalesceStreamsPreprocessor]
# What is written past Python goes to that log, not into the outputs.
c.ExecutePreprocessor.extra_arguments = ["--IPKernelApp.capture_fd_output=False"]
# No time stamps in the file, so that equal runs give equal files.
c.ExecutePreprocessor.record_timing = False

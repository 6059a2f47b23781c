"""Settings of `jupyter nbconvert --execute`: says where it is, and stores no noise."""

import os

from nbclient import NotebookClient

c = get_config()  # noqa: F821

# TensorFlow's start-up log goes neither into the outputs nor over the lines below.
c.NotebookClient.extra_arguments = ["--IPKernelApp.capture_fd_output=False"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# No time stamps in the file, so that equal runs give equal files.
c.NotebookClient.record_timing = False
# A cell's printed lines as one output.
c.NotebookExporter.preprocessors = ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]


def say_section(cell, cell_index):
    """Prints the heading of a section when it begins."""
    if cell.cell_type == "markdown" and cell.source.startswith("## "):
        print(cell.source.splitlines()[0].strip("# "), flush=True)


def say_epoch(client, message, cell, cell_index):
    """Prints what Keras says of an epoch: that it begins, and how it ended."""
    text = message["content"].get("text", "") if message["msg_type"] == "stream" else ""
    for line in text.splitlines():
        if line.startswith("Epoch ") or "val_loss" in line:
            print("   ", line, flush=True)
    return process_message(client, message, cell, cell_index)


c.NotebookClient.on_cell_start = say_section
process_message, NotebookClient.process_message = NotebookClient.process_message, say_epoch

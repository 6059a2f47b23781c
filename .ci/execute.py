"""Settings of `jupyter nbconvert --execute`: says where it is, and stores no noise."""

import os

from nbclient import NotebookClient

c = get_config()  # noqa: F821

# TensorFlow's start-up log goes neither into the outputs nor over the lines below.
c.NotebookClient.extra_arguments = ["--IPKernelApp.capture_fd_output=False"]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# No time stamps in the file, so that equal runs give equal files.
c.NotebookClient.record_timing = False
# A cell's printed lines as one output; of a rewritten line, what stood there last.
c.NotebookExporter.preprocessors = ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]


def say_section(cell, cell_index):
    """Prints the heading of a section when it begins."""
    if cell.cell_type == "markdown" and cell.source.startswith("## "):
        print(cell.source.splitlines()[0].strip("# "), flush=True)


def say_epoch(client, message, cell, cell_index):
    """Prints the line of an epoch when it is over."""
    text = message["content"].get("text", "") if message["msg_type"] == "stream" else ""
    if "epoch " in text and text.endswith("\n"):
        print("   ", text.split("\r")[-1].strip(), flush=True)
    return process_message(client, message, cell, cell_index)


c.NotebookClient.on_cell_start = say_section
process_message, NotebookClient.process_message = NotebookClient.process_message, say_epoch

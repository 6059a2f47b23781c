"""Settings of `jupyter nbconvert --execute`: stored outputs without noise."""

c = get_config()  # noqa: F821

# TensorFlow's start-up log goes to the terminal, not into the outputs.
c.NotebookClient.extra_arguments = ["--IPKernelApp.capture_fd_output=False"]
# No time stamps in the file, so that equal runs give equal files.
c.NotebookClient.record_timing = False
# A cell's printed lines as one output; of a rewritten line, what stood there last.
c.NotebookExporter.preprocessors = ["nbconvert.preprocessors.CoalesceStreamsPreprocessor"]

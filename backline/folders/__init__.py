"""The same work on every file of some folders: inputs, workers, report."""

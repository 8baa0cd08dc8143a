"""The progress reporters, under the name by which users of medres import them."""

from data_pipelines.runtime.progress import Bars, ProgressReporter

__all__ = ["Bars", "ProgressReporter"]

"""Studies in which human readers rate cases: figures of merit, covariances, and what holds for
other readers and other cases. numpy, scipy and pandas only.
"""

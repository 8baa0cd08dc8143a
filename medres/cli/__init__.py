"""The command line: one module of verbs per subject, thin over the functions that people call from
Python.
"""

from __future__ import annotations

"""The command line: one module of verbs per subject, each a thin layer over a public function.

May import every other room; only medres.__main__ and medres.evaluate.__main__ import it.
"""

from __future__ import annotations

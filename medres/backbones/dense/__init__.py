"""Densely connected networks: their specification, the table of variants, and their blocks.

TensorFlow is loaded only by `blocks`. May import medres.backbones (spec, layer_factory) and errors.
"""

"""Boxes that a detector predicts against reference boxes: average precision as pycocotools computes
it, FROC, and the ROC of whole images, with intervals by patient. numpy, scipy and pandas only.
"""

"""Masks against reference masks: overlap, distances between surfaces, lesions and volumes, by class
and patient, and their report. numpy, scipy and pandas only.
"""

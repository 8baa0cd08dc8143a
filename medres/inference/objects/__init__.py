"""From a prediction and its files to DICOM objects and FHIR, beside the other files of `medres
predict --out`.
"""

"""The way out: the DICOM objects of each result go to a PACS by STOW-RS or C-STORE, each of them
until it has arrived. What never arrives is a dead letter, which a person can send again.
"""

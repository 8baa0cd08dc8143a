"""DICOMweb (PS3.18) as a client: QIDO-RS, WADO-RS and STOW-RS over the HTTP of the standard
library, and downloads into a folder that go on where they stopped.
"""

"""The doors of the server: HTTP (JSON API and STOW-RS), DICOM C-STORE, and a watched folder. All
lead to `Spool.accept`.
"""

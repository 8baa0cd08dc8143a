"""A model outside Keras: the graph that is exported, the file formats of other runtimes, and what
travels with them: `serving.json` and golden vectors from DICOM files to probabilities.
"""

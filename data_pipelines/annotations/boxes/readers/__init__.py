"""One small file per format of boxes. Each reader takes bytes, converts to edges once, and returns
the images that the file lists (`raw_boxes`).
"""

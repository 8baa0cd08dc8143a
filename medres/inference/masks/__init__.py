"""What a segmenter predicts: label maps on the grid of the images, their files, and the label maps
of a split for evaluation.
"""

"""What a detector predicts: boxes in the pixels of the original images, their files, and the boxes
of a split for evaluation.
"""

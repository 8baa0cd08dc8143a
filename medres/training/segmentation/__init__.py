"""What training a segmenter needs beside the loop: its network, its loss and its step, Dice on the
tuning split, and the post-processing that is frozen there.

May import from the data and the step of training; the run imports from here.
"""

"""What training a detector needs beside the loop: its network, its loss and its step, average
precision and FROC on the tuning split, and the thresholds that are frozen there.

May import from the data and the step of training; the run imports from here.
"""

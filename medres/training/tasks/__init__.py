"""What a run needs of a task that learns masks or boxes: one row for each, which the rooms of
segmentation and detection fill and the run calls; and the step that moves images and labels alike.

May import from the data and the step of training.
"""

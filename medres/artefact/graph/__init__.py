"""The graph of a model file, checked without Keras: which layers and options are allowed, what each
layer computes and costs; and the two ways in which a checked graph is opened.
"""

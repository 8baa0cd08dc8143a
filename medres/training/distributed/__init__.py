"""Training over several processes: who takes part (`cluster`), what the chief and the workers tell
each other (`team`, over connections of its own), that all of them do the same (`agreement`), and
how a process joins before TensorFlow starts (`joining`).
"""

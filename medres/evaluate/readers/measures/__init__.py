"""What a reader study says beside its figure of merit: agreement between readers, ROC and FROC
curves, operating points and reading times.
"""

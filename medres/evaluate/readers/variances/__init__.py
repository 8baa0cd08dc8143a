"""Variances of the figures of a reader study: covariances over cases, the analysis of variance of
Obuchowski and Rockette, U-statistics, intervals and tests, and sample sizes.
"""

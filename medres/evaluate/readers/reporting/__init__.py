"""A reader study for people: the page with its figures, CSV tables, the text for a methods section,
and matplotlib figures. Nothing is computed here.
"""

"""The page of `medres serve` for people: worklist, studies with their images, models, health, and
uploads. Rendered on the server; research use only is said on each page.
"""

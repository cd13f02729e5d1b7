"""What people drew on slides, read into level-0 pixels: one file for each format.

asap.py       XML of ASAP (CAMELYON16, CAMELYON17): polygons in groups
geojson.py    GeoJSON of QuPath: polygons with holes and points, by class
mask_tiff.py  a pyramid whose pixels are class numbers (PANDA)
points.py     a CSV of points with a label

slide_annotation.py finds the file of a slide among them, and reads it whichever it is.
"""

"""`convert`: labels of other programs and a class for each image, turned into a joint data set.

The way of an image: `image_files` (find and read it) -> `formats` (its annotation, into a `source.Source`) -> `image_labels` (its
class, and what else is said of it) -> `split` -> `boxes` (shares of the picture) -> `write`. What is odd is noted in
`oddities`; `command` has the flags and calls one after the other.
"""

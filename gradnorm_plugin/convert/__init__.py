"""`convert`: Pascal VOC, COCO or YOLO labels and a class for each image, turned into a joint data set.

The way of an image: image_files (find and read it) -> voc, coco or yolo (what its annotation says) -> classes (its class)
-> split -> annotations (boxes as shares of the picture) -> write. What is odd on the way is noted in oddities; command
has the flags and calls one after the other.
"""

"""`convert`: Pascal VOC, COCO or YOLO labels and a class for each image, turned into a joint data set.

The way of an image: images (find and read it) -> voc, coco or yolo (what its annotation says) -> geometry (boxes as
shares of the picture) -> classes (its class) -> split -> write. What is odd on the way is noted in oddities.
"""

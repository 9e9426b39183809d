"""Test sets with ImageNet's classes, from their official archives: the labels are those of TFDS."""

"""Test sets with ImageNet's classes, from their official archives; labels are as in TFDS."""

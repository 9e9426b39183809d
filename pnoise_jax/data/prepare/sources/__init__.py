"""Finds images and labels in folders, archives and lists, without reading the images."""

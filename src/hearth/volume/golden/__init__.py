"""Volumes made of golden images: written from an image or cloned from it, on whatever storage there is."""

"""Restoring images with the networks that ship, and how well they do by the field's protocols."""

from amstel.restoration.files import Picture
from amstel.restoration.restoring import restore

__all__ = ["Picture", "restore"]

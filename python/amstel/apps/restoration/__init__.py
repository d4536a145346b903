"""Restoring images and MRI with recurrent inference machines."""

"""Drop-in replacements for modules of other libraries, and converters for their weights."""

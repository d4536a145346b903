"""Drop-in replacements for other libraries' modules and readers of their weights."""

"""Discovery of plug-in files, and the text form in which they are named."""

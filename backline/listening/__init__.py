"""Pages, pictures and sound of songs."""

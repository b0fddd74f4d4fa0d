"""Behind prepare.py: the dataset, the songs read for it, and their duplicates."""

"""Behind prepare.py: the dataset and its duplicates."""

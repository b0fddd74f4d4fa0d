"""Behind evaluate.py and copies.py: losses, measures, copies."""

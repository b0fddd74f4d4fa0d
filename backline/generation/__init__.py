"""Behind generate.py: what to play, rules, sampling, files."""

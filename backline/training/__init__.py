"""Behind train_pool.py: a run, its rows, its checkpoints."""

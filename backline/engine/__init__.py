"""Playing a model note by note: without torch on a CPU, with it on a GPU."""

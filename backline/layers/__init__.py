"""What the model's layers are made of."""

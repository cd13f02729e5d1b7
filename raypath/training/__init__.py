"""Training: the loop (pure torch), its optimisers and checkpoints, and pretraining on Ray Train."""

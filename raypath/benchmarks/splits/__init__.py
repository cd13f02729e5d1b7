"""Who is trained on, who chooses and who is asked: made splits, folds, and what may not stand on two sides of one."""
